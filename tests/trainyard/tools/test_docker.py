"""The Docker client is found once, and where it isn't, Docker's own reason is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trainyard.tools.docker import DockerError, client, docker


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine's only `docker`."""
    path = tmp_path / "docker"
    path.touch(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(path) if name == "docker" else None)
    client.cache_clear()
    yield path
    client.cache_clear()


def test_an_engine_that_does_not_answer_is_told_with_its_reason(program: Path) -> None:
    program.write_text("#!/bin/sh\necho 'permission denied: /var/run/docker.sock' >&2; exit 1\n")
    with pytest.raises(DockerError, match=r"answer: permission denied: /var/run/docker\.sock"):
        docker("ps")
    program.write_text("#!/bin/sh\n")  # and it is asked again, not remembered
    assert docker("ps").returncode == 0


def test_an_engine_that_answered_is_not_asked_before_every_command(program: Path) -> None:
    asked = program.with_name("asked")
    program.write_text(f"#!/bin/sh\necho $1 >>{asked}\n")
    docker("ps")
    docker("images")
    assert asked.read_text().split() == ["info", "ps", "images"]


def test_a_machine_without_docker_is_told_where_it_is(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(DockerError, match=r"docs\.docker\.com"):
        docker("ps")
