"""The type checker is what sees a wrong property: Pulumi's mocks take any."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.server  # no server, but twenty seconds of mypy

SEEDED = """
import pulumi_aws as aws

aws.s3.BucketVersioning("v", bucket="b", versioning_configuration={"%s": "Enabled"})
"""


@pytest.mark.parametrize(("name", "passes"), [("status", True), ("statuss", False)])
def test_a_misspelt_property_fails_the_types(name: str, passes: bool, tmp_path: Path) -> None:
    path = tmp_path / "seeded.py"
    path.write_text(SEEDED % name)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) is passes, done.stdout
    assert passes or "BucketVersioning" in done.stdout
