"""How a rehearsal ends that goes wrong; those that go well are in tests/rehearsal."""

from pathlib import Path

import pytest
from rich.console import Console

from infra.rehearsal import rehearse
from infra.rehearsal.rehearse import Rehearsal, perform
from infra.rehearsal.session import RehearsalError, Session

REASON = "[urn=urn:pulumi:rehearsal::trainyard] no module in [/venv/bin]"


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The homes of the emulators that were ended, on a machine that has all that is needed."""
    homes: list[Path] = []
    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    monkeypatch.setattr(rehearse, "missing", lambda: None)
    monkeypatch.setattr(Session, "stop", lambda session: homes.append(session.home))
    return homes


def fail(_: Rehearsal, console: Console) -> None:
    with rehearse.step(console, "make up"):
        raise RehearsalError(REASON)


def test_the_reason_is_told_as_it_is_and_the_emulator_ends(
    ended: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perform("rehearse", "self-hosted", fail, keep=False) == 1
    said = capsys.readouterr().out
    assert "✗ make up" in said
    assert REASON in said
    assert "rehearse.log" in said
    assert ended == [tmp_path / ".trainyard/rehearsal"]


def test_what_keeps_the_emulator_from_ending_is_told_too(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stay(_: Session) -> None:
        raise RehearsalError("Docker keeps a network")

    monkeypatch.setattr(Session, "stop", stay)
    assert perform("rehearse", "self-hosted", lambda *_: None, keep=False) == 1
    assert "Docker keeps a network" in capsys.readouterr().out
    assert perform("rehearse", "self-hosted", fail, keep=False) == 1
    said = capsys.readouterr().out
    assert said.index(REASON) < said.index("Docker keeps a network")


def test_keep_leaves_the_emulator(ended: list[Path]) -> None:
    assert perform("rehearse", "self-hosted", fail, keep=True) == 1
    assert ended == []


def test_what_stands_in_for_prefect_cloud_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rehearse", "--prefect", "cloud", "--keep"])
    with pytest.raises(SystemExit) as refused:
        rehearse.main()
    assert refused.value.code == 2
    assert "ends with this command" in capsys.readouterr().err
