"""`make rehearse`, typed as README.md says; with Prefect Cloud, which test_pulumi_up.py is without.

The command has an emulator of its own, so this comes before what shares one.
"""

import os
import signal
import subprocess

import pytest

from infra.docker import docker
from infra.rehearsal.session import CONTAINER, NETWORK, Session, missing
from tests.conftest import ROOT, STAMPS

pytestmark = pytest.mark.timeout(1800)


def steps(text: str) -> list[str]:
    """The titles of the table's steps."""
    return [line[2:30].strip() for line in text.splitlines() if line.startswith("✓")]


def test_make_rehearse_goes_through_the_steps_of_the_readme_and_leaves_nothing() -> None:
    if lacking := missing():
        pytest.skip(f"a rehearsal needs more: {lacking}")
    session = Session(ROOT / ".trainyard/rehearsal")
    owner = session.owner()
    assert owner is None, f"the emulator of {owner} runs: `make down STACK=rehearsal`, and again"
    command = ["make", *STAMPS, "rehearse", "PREFECT=cloud"]
    make = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, _ = make.communicate(timeout=1500)
    finally:
        if make.poll() is None:  # as Ctrl-C: it ends what it began
            os.killpg(make.pid, signal.SIGINT)
            make.wait(60)
    assert make.returncode == 0, said
    assert steps(said) == steps((ROOT / "README.md").read_text())
    assert CONTAINER not in docker("ps", "-a", "--format", "{{.Names}}").stdout
    assert session.containers() == []
    assert NETWORK not in docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "infra.rehearsal.cloud" not in processes.stdout
