"""`make rehearse`, typed as README.md says; with Prefect Cloud, which test_pulumi_up.py is without.

The command has an emulator of its own, so this comes before what shares one.
"""

import subprocess

import pytest

from infra.docker import docker
from infra.rehearsal.session import CONTAINER, missing
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(1800)


def steps(text: str) -> list[str]:
    """The titles of the table's steps."""
    return [line[2:30].strip() for line in text.splitlines() if line.startswith("✓")]


def test_make_rehearse_goes_through_the_steps_of_the_readme_and_leaves_nothing() -> None:
    if lacking := missing():
        pytest.skip(f"a rehearsal needs more: {lacking}")
    done = subprocess.run(
        ["make", "rehearse", "PREFECT=cloud"], cwd=ROOT, capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert steps(done.stdout) == steps((ROOT / "README.md").read_text())
    assert CONTAINER not in docker("ps", "-a", "--format", "{{.Names}}").stdout
