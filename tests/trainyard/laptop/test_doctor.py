"""`make doctor` without a stack: what is wrong on this laptop, and what to do about it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainyard.__main__ import main
from trainyard.laptop import commands, doctor, processes
from trainyard.tools.errors import StackError


@pytest.fixture
def command(shell: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may be run here: what it does to its process ends with the test."""
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_is_free_or_ours_or_somebody_elses(
    listener: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.USUAL_PORTS, "mlflow", listener)
    found = doctor.port("mlflow")
    assert (found.found, found.failed) == ("taken", False)
    assert "`make up` takes another port" in found.todo

    monkeypatch.setattr(doctor, "HOME", tmp_path)
    marks = {processes.STACK: f"{tmp_path}", processes.SERVICE: "mlflow"}
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); "
    code += "import time; s.listen(); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-uc", code],
        env={**os.environ, **marks},
        stdout=subprocess.PIPE,
        text=True,
    ) as ours:
        assert ours.stdout
        port = int(ours.stdout.readline())
        monkeypatch.setitem(doctor.USUAL_PORTS, "mlflow", port)
        found = doctor.port("mlflow")
        assert (found.found, found.todo) == ("MLflow of `make up`", "")
        ours.kill()
        ours.wait()
    assert doctor.port("mlflow").found == "free"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("UV_DEFAULT_INDEX", "http://127.0.0.1:9"), ("HTTPS_PROXY", "http://127.0.0.1:9")],
)
def test_an_index_that_does_not_answer_is_told_with_its_settings(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (doctor.REPO / ".uv/bin/uv").exists():
        pytest.skip("no .uv: `make` builds it")
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(setting, value)
    found = {check.what: check for check in doctor.laptop()}["package index"]
    assert "refused" in found.found
    assert "UV_DEFAULT_INDEX" in found.todo
    assert "HTTPS_PROXY" in found.todo
    assert not found.failed  # what is built works without it


@pytest.mark.parametrize(
    ("free", "files", "told"), [(1000, 10**6, "4 MB free"), (10**8, 7, "room for 7 files")]
)
def test_a_full_disk_is_told_by_doctor_and_by_whatever_failed_of_it(
    free: int, files: int, told: str, command: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = SimpleNamespace(f_bavail=free, f_frsize=4096, f_files=10**6, f_favail=files)
    monkeypatch.setattr(doctor.os, "statvfs", lambda _: left)
    assert told in doctor.disk().found
    assert doctor.disk().failed

    def fails(_: object) -> int:
        raise StackError("Prefect has died")

    with pytest.raises(
        StackError, match=f"Prefect has died\nthe disk is full: .* {told}; make room"
    ):
        commands.run(fails)


def test_a_disk_that_has_room_again_was_full_when_it_is_said(command: None) -> None:
    def fails(_: object) -> int:
        raise OSError(28, "No space left on device", "state.json")

    with pytest.raises(StackError, match=r"state\.json'\na disk was full.*make room"):
        commands.run(fails)

    def otherwise(_: object) -> int:
        raise StackError("Prefect has died")

    with pytest.raises(StackError, match=r"^Prefect has died$"):
        commands.run(otherwise)


def test_without_a_stack_the_laptop_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9")
    main(["doctor"])
    said = capsys.readouterr().out
    for what in ("disk", "port 4200", "port 5000", "package index", "Python", "environment laptop"):
        assert f" {what} " in said
