import subprocess
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL, temporary_settings

from flows.platform import run_info
from flows.platform.run_info import RunInfo, current_run

ID = UUID("5cf31fb3-0b1a-4c8e-9d0b-2f1f0f6a0a01")
SIX = datetime(2026, 3, 5, 6, tzinfo=UTC)


def flow_run(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Be inside of this flow run."""
    run = SimpleNamespace(id=ID, name="bold-cat", parameters={}, **values)
    monkeypatch.setattr(FlowRunContext, "get", lambda: SimpleNamespace(flow_run=run))


def test_outside_of_a_flow_run_the_message_says_so() -> None:
    with pytest.raises(RuntimeError, match="no flow run here: call this from inside a flow"):
        current_run()


def test_a_run_has_its_scheduled_time_not_the_time_it_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow_run(monkeypatch, expected_start_time=SIX, start_time=SIX + timedelta(hours=2))
    run = current_run()
    assert (run.id, run.name, run.scheduled) == (str(ID), "bold-cat", SIX)


def test_a_scheduled_time_in_another_zone_is_told_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SIX.astimezone(timezone(timedelta(hours=-5)))
    flow_run(monkeypatch, expected_start_time=there, start_time=None)
    assert current_run().experiment_name("x") == "x 2026-03-05 06:00:00.000Z"


def test_a_run_without_a_schedule_has_the_time_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    flow_run(monkeypatch, expected_start_time=None, start_time=SIX)
    assert current_run().scheduled == SIX


def test_a_run_has_its_page_in_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    flow_run(monkeypatch, expected_start_time=SIX, start_time=None)
    with temporary_settings({PREFECT_UI_URL: "http://prefect.example"}):
        assert current_run().url == f"http://prefect.example/runs/flow-run/{ID}"


def test_a_commit_whose_files_were_changed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", f"{tmp_path}", "-c", "user.name=me", "-c", "user.email=me@example.com"]
    monkeypatch.setattr(run_info, "ROOT", tmp_path)
    monkeypatch.delenv("TRAINYARD_COMMIT", raising=False)
    (tmp_path / "a").touch()
    for arguments in (["init", "-q"], ["add", "a"], ["commit", "-qm", "one"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    commit = head.stdout.strip()
    told = run_info.code_commit.__wrapped__
    assert told() == commit
    (tmp_path / "a").write_text("changed")
    assert told() == f"{commit}-dirty"


@pytest.mark.parametrize(("count", "ended"), [(1, False), (2, True), (3, True)])
def test_only_a_later_attempt_ends_what_earlier_ones_left(
    count: int, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UUID] = []
    monkeypatch.setattr(run_info, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(run_info, "_end_unfinished", lambda _, run: asked.append(run))
    flow_run(monkeypatch, run_count=count)
    run_info.end_killed_attempts()
    assert asked == [ID] * ended


def test_experiment_names_sort_by_the_scheduled_time() -> None:
    moments = [SIX, SIX + timedelta(milliseconds=5), SIX + timedelta(hours=7), SIX.replace(day=12)]
    names = [RunInfo("1", "n", moment, "").experiment_name("taxi-train") for moment in moments]
    assert names[:2] == [
        "taxi-train 2026-03-05 06:00:00.000Z",
        "taxi-train 2026-03-05 06:00:00.005Z",
    ]
    assert names == sorted(names)
