"""The images, built once for all tests."""

import subprocess

import pytest

from infra import images
from infra.images import Built
from infra.rehearsal.session import docker_command


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    if docker_command() is None:
        pytest.skip("images need more: no Docker engine answers")
    return images.build_all("x86_64")


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = docker_command()
    assert command, "no Docker engine answers any more"
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done
