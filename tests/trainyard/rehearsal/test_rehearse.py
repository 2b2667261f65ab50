"""How a rehearsal ends that goes wrong; those that go well are in tests/e2e/rehearsal."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from tests.conftest import free_port
from trainyard.aws.preview import Change, PreviewResult
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.rehearsal import fake_prefect_cloud, rehearse, target
from trainyard.rehearsal.emulator_session import RehearsalError, Session
from trainyard.rehearsal.rehearse import check_unchanged, perform
from trainyard.rehearsal.stack import Rehearsal
from trainyard.tools.errors import StackError

REASON = "[urn=urn:pulumi:rehearsal::trainyard] no module in [/venv/bin]"


@pytest.fixture
def ended(shell: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The homes of the emulators that were ended, on a machine that has all that is needed."""
    homes: list[Path] = []
    monkeypatch.setattr(target, "REPO", tmp_path)
    monkeypatch.setattr(rehearse, "missing", lambda: None)
    monkeypatch.setattr(Session, "stop", lambda session: homes.append(session.home))
    return homes


def fail(_: Rehearsal, console: Console) -> None:
    def up() -> None:
        raise RehearsalError(REASON)

    rehearse.step(console, "make up", up)


def test_the_reason_is_told_as_it_is_and_the_emulator_ends(
    ended: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perform("rehearse", "self-hosted", fail, keep=False) == 1
    said = capsys.readouterr().out
    assert "✗ make up" in said
    assert REASON in said
    assert "rehearse.log" not in said  # there is nothing in it
    assert ended == [tmp_path / ".trainyard/rehearsal"]


def test_where_pulumi_or_a_task_failed_the_logs_last_lines_stand_above_the_reason(
    ended: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_at_length(reason: Exception) -> Callable[..., None]:
        def act(*_: object) -> None:
            print(*[f"line {n}" for n in range(100)], sep="\n")
            raise reason

        return act

    act = fail_at_length(StackError("its last lines are above"))
    assert perform("rehearse", "self-hosted", act, keep=False) == 1
    said = capsys.readouterr().out
    assert "line 74\n" not in said
    parts = ("line 75\n", "line 99\n", "rehearse.log", "its last lines are above")
    shown = [said.index(each) for each in parts]
    assert shown == sorted(shown)
    # a promise that is broken says why itself
    act = fail_at_length(RehearsalError(REASON))
    assert perform("rehearse", "self-hosted", act, keep=False) == 1
    assert "line 99" not in capsys.readouterr().out


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


def test_keep_leaves_the_emulator_and_says_how_it_ends(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "runs", lambda _: True)
    assert perform("rehearse", "self-hosted", fail, keep=True) == 1
    assert ended == []
    assert "`make down STACK=rehearsal`" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_kill_and_a_closed_terminal_end_the_emulator_too(
    number: signal.Signals, ended: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    def end(_: Session) -> None:
        os.kill(os.getpid(), number)  # it comes from make as well
        ended.append(Path())

    monkeypatch.setattr(Session, "stop", end)
    before = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup
    try:
        assert perform("rehearse", "self-hosted", killed, keep=False) == 1
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert len(ended) == 1


def test_with_nohup_a_closed_terminal_ends_nothing(ended: list[Path]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hung_up = perform(
            "rehearse",
            "self-hosted",
            lambda *_: os.kill(os.getpid(), signal.SIGHUP),
            keep=False,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert hung_up == 0


def test_pulumi_is_told_of_the_end_and_waited_for(
    ended: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulumi = tmp_path / "pulumi"
    wait = "trap 'sleep 1; touch ended; exit 1' INT; touch begun; while :; do sleep 0.1; done"
    version = "[ $1 = version ] && exec echo v3.259.0"
    pulumi.write_text(f"#!/bin/sh\n{version}\ncd {tmp_path}\n{wait}\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def kill() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill, daemon=True).start()

    def up(rehearsal: Rehearsal, _: Console) -> None:
        Pulumi("rehearsal", tmp_path, log=rehearsal.log).up()

    assert perform("rehearse", "self-hosted", up, keep=False) == 1
    assert (tmp_path / "ended").exists()
    assert len(ended) == 1


def test_what_stands_in_for_prefect_cloud_is_not_kept(ended: list[Path]) -> None:
    with pytest.raises(StackError, match="ends with this command"):
        rehearse.rehearse_command("cloud", keep=True)


def test_what_the_shell_says_of_aws_and_prefect_stays_out(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = (
        *("PREFECT_API_KEY", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE"),
        *("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "TRAINYARD_NOTIFY_WEBHOOK"),
    )
    for name in theirs:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("TRAINYARD_BASE_IMAGE", "kept")
    seen: dict[str, str] = {}
    perform("rehearse", "self-hosted", lambda *_: seen.update(os.environ), keep=False)
    assert "theirs" not in seen.values()
    assert seen["TRAINYARD_BASE_IMAGE"] == "kept"


# --- steps ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("foreseen", "done"),
    [("same", {"same": 3}), ("same", {"same": 2, "update": 1}), ("update", {})],
)
def test_a_second_up_that_changes_something_is_found(
    foreseen: str, done: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (Change(foreseen, "aws:sqs/queue:Queue", "b"),) if foreseen != "same" else ()
    monkeypatch.setattr(rehearse, "preview", lambda _: PreviewResult(changes, (), False, ()))
    last = SimpleNamespace(resource_changes=done)
    pulumi = SimpleNamespace(api=SimpleNamespace(info=lambda: last))
    stack: Any = SimpleNamespace(pulumi=pulumi, up=lambda: None)
    if done == {"same": 3}:
        assert check_unchanged(stack) == "3 resources unchanged"
        return
    with pytest.raises(RehearsalError, match="update"):
        check_unchanged(stack)


# --- with Prefect Cloud ---------------------------------------------------------------------------
@pytest.mark.server
def test_what_stands_in_for_prefect_cloud_comes_and_goes_with_the_rehearsal(
    url: str, ended: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr(fake_prefect_cloud, "GATEWAY", "127.0.0.1")
    monkeypatch.setattr(fake_prefect_cloud, "PORT", port)
    api = f"http://127.0.0.1:{port}{fake_prefect_cloud.WORKSPACE}"
    monkeypatch.setattr(fake_prefect_cloud, "URL", api)
    for name in ("start", "begin"):
        monkeypatch.setattr(Session, name, lambda *_, **__: None)
    monkeypatch.setattr(Session, "deploy_role", lambda _: {})
    monkeypatch.setattr(Session, "url", url)
    rehearsal = Rehearsal(Session(tmp_path), "cloud")
    rehearsal.open()
    try:
        key = rehearsal.secret("trainyard-prefect-api-key")
        for given, status in ((key, 200), ("wrong", 401)):
            headers = {"Authorization": f"Bearer {given}"}
            assert httpx.get(f"{api}/admin/version", headers=headers).status_code == status
    finally:
        rehearsal.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{api}/health")
    assert ended  # the emulator with it
