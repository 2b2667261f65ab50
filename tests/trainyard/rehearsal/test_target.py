"""The stack `rehearsal` as commands find it: on an emulator that is begun, looked at and ended."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard.rehearsal import target
from trainyard.rehearsal.emulator_session import RehearsalError, Session
from trainyard.tools.errors import StackError


@pytest.fixture
def rehearsal(shell: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A clone whose rehearsal is up, and may not be begun; gives what is done with it."""
    done = list[str]()

    def begin(*_: Any) -> None:
        raise AssertionError("an emulator is started, or images are built")

    monkeypatch.setattr(target, "REPO", tmp_path)
    (tmp_path / ".trainyard/rehearsal/project").mkdir(parents=True)
    monkeypatch.setattr(target, "missing", lambda: None)
    monkeypatch.setattr(target, "build", begin)
    monkeypatch.setattr(target, "down", lambda pulumi: done.append(f"destroy {pulumi.stack}"))
    monkeypatch.setattr(Session, "start", begin)
    monkeypatch.setattr(Session, "runs", lambda _: True)
    monkeypatch.setattr(Session, "stop", lambda _: done.append("stop"))
    monkeypatch.setattr(Session, "deploy_role", lambda _: {"AWS_ACCESS_KEY_ID": "role"})
    monkeypatch.setattr(Session, "leftovers", lambda _: "")
    return done


def test_a_rehearsal_is_ended_without_being_begun(rehearsal: list[str]) -> None:
    target.end_rehearsal()
    assert rehearsal == ["destroy rehearsal", "stop"]


@pytest.mark.parametrize("killed_as_it_began", [True, False])
def test_where_no_rehearsal_is_up_there_is_nothing_to_end(
    killed_as_it_began: bool,
    rehearsal: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if killed_as_it_began:
        (tmp_path / ".trainyard/rehearsal/project").rmdir()
    else:
        monkeypatch.setattr(Session, "runs", lambda _: False)
    target.end_rehearsal()
    assert rehearsal == ["stop"]  # what may be left of its emulator
    assert "no rehearsal of this clone is up" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["deploy_role", "destroy"])
def test_a_rehearsal_whose_state_is_broken_ends_with_its_emulator(
    broken: str, rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> Any:
        raise RehearsalError("the state can't be read")

    if broken == "destroy":
        monkeypatch.setattr(target, "down", fail)
    else:
        monkeypatch.setattr(Session, "deploy_role", fail)
    with pytest.raises(StackError, match=r"(?s)the state can't be read.*ended all the same"):
        target.end_rehearsal()
    assert rehearsal == ["stop"]


def test_what_a_destroyed_rehearsal_leaves_is_told_and_ends_with_the_emulator(
    rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "leftovers", lambda _: "destroy left a bucket")
    with pytest.raises(StackError, match="destroy left a bucket"):
        target.end_rehearsal()
    assert rehearsal == ["destroy rehearsal", "stop"]


def test_what_looks_at_a_rehearsal_starts_none(
    rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "runs", lambda _: False)
    with pytest.raises(StackError, match="`make up STACK=rehearsal`"):
        target.found()
    assert rehearsal == []


def test_a_rehearsals_lock_goes_with_its_emulator_and_nobody_is_asked(
    rehearsal: list[str], tmp_path: Path
) -> None:
    found = target.found()
    assert found.unlock == "`make down STACK=rehearsal`"
    assert not found.ask
    assert found.folder == tmp_path / ".trainyard/rehearsal/project"


def test_a_rollback_of_a_rehearsal_runs_no_image_that_its_settings_name(
    rehearsal: list[str], tmp_path: Path
) -> None:
    file = tmp_path / ".trainyard/rehearsal/project/Pulumi.rehearsal.yaml"
    pins = {"trainyard:flowImage": "sha256:1", "trainyard:profile": "minimal"}
    file.write_text(yaml.safe_dump({"config": pins}))
    target.found(released=True)
    config = yaml.safe_load(file.read_text())["config"]
    assert "trainyard:flowImage" not in config
    assert config["trainyard:profile"] == "minimal"
