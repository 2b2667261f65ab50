"""What `make drills` writes; the drills themselves are in tests/e2e/rehearsal."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed
from rich.console import Console

from flows.taxi.preprocess import preprocess
from trainyard.rehearsal import drill_runner
from trainyard.rehearsal.drill_runner import REPORT, Result, chosen, run_waves, written
from trainyard.rehearsal.drills import DRILLS, PARTS, PREPARATION, WAVES
from trainyard.rehearsal.emulator_session import RehearsalError
from trainyard.rehearsal.scene import Drill, Scene, done_twice
from trainyard.tools.errors import StackError

DRILL = Drill("flow-killed", "Flow killed", lambda _: "")
KILLED = Result(DRILL, "a | b", 61.4, "2026-11-28, 1a2b3c4d5e6f")
TABLE = """# Reliability

<!-- generated: drills -->
| drill | observed | seconds | last run |
| --- | --- | --- | --- |
| Flow killed (`flow-killed`) | as it was | 60 | 2026-11-01, 0a0a0a0a0a0a |
| Worker killed (`worker-killed`) | as it was | 70 | 2026-11-01, 0a0a0a0a0a0a |
| Gone (`no-drill-any-more`) | as it was | 80 | 2026-11-01, 0a0a0a0a0a0a |
<!-- end of drills -->
tail
"""


def test_the_flow_takes_what_a_drill_gives_it() -> None:
    preprocess.validate_parameters({**PREPARATION, "store": "s3://store", "workspace": "w"})


def test_the_table_stands_between_its_marks_and_the_rest_is_left() -> None:
    head = "# Reliability\n\n<!-- generated: drills -->\nold\n<!-- end of drills -->\ntail\n"
    text = written(head, [KILLED])
    assert "| Flow killed (`flow-killed`) | a \\| b | 61 | 2026-11-28, 1a2b3c4d5e6f |\n" in text
    assert "old" not in text
    assert text.startswith("# Reliability\n")
    assert text.endswith("<!-- end of drills -->\ntail\n")
    assert written(text, [KILLED]) == text


def test_drills_that_did_not_run_keep_their_rows_and_those_that_are_gone_lose_them() -> None:
    rows = [row for row in written(TABLE, [KILLED]).splitlines() if "(`" in row]
    assert rows == [
        "| Flow killed (`flow-killed`) | a \\| b | 61 | 2026-11-28, 1a2b3c4d5e6f |",
        "| Worker killed (`worker-killed`) | as it was | 70 | 2026-11-01, 0a0a0a0a0a0a |",
    ]


def test_only_the_last_thing_of_a_broken_attempt_may_be_done_again() -> None:
    run, noon = uuid4(), datetime(2026, 11, 30, 12, tzinfo=UTC)

    def task(name: str, attempt: int, second: int, of: UUID = run) -> TaskRun:
        state = Completed(name="Completed")
        return TaskRun(
            name=name,
            flow_run_id=of,
            task_key=name,
            dynamic_key=f"{name}-{attempt}",
            flow_run_run_count=attempt,
            start_time=noon + timedelta(seconds=second),
            end_time=noon + timedelta(seconds=second + 1),
            state=state,
            state_name=state.name,
        )

    first = [task("train", 1, 0), task("register", 1, 1), task("benchmark", 1, 2)]
    assert done_twice([*first, task("benchmark", 2, 60), task("promote", 2, 61)], run) == set()
    assert done_twice([*first, task("register", 2, 60)], run) == {"register"}
    again = task("benchmark", 2, 60)
    assert done_twice([*first, again, task("benchmark", 2, 62)], run) == {"benchmark"}
    subflow = uuid4()
    twice = [task("check", 1, 3, subflow), task("check", 1, 60, uuid4())]
    assert done_twice([*first, *twice, again], run) == {"check"}


def test_the_report_has_the_place_for_the_table() -> None:
    row = replace(KILLED, observed="a new row")
    assert "a new row" in written(REPORT.read_text(), [row])


def test_every_drill_has_a_name_for_people() -> None:
    titles = [drill.title for drill in DRILLS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_each_drill_runs_in_one_wave() -> None:
    assert len([drill for wave in WAVES for drill in wave]) == len(DRILLS)


def test_a_drill_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(StackError) as refused:
        chosen("flow-kiled")
    said = str(refused.value)
    assert "flow-kiled; did you mean flow-killed?" in said
    assert all(name in said for name in DRILLS)


def test_a_choice_is_all_drills_one_or_todays_part() -> None:
    assert chosen("") == WAVES
    assert chosen("flow-killed") == ((DRILLS["flow-killed"],),)
    assert chosen("today") in PARTS
    of_a_day = [drill.name for part in PARTS for wave in part for drill in wave]
    assert sorted(of_a_day) == sorted(DRILLS)


def test_a_drill_that_fails_leaves_what_the_others_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Scene) -> str:
        raise RehearsalError("it was pulled after all")

    def drill(name: str) -> Drill:
        return Drill(name, name, fail if name == "image-missing" else lambda _: "seen now")

    report = tmp_path / "reliability.md"
    report.write_text(TABLE)
    monkeypatch.setattr(drill_runner, "REPORT", report)
    monkeypatch.setattr(drill_runner, "bring_up", lambda *_: None)
    monkeypatch.setattr(drill_runner, "deployed", nullcontext)
    stack: Any = SimpleNamespace(prefect=nullcontext)
    wave = [drill(name) for name in ("flow-killed", "image-missing", "flow-stopped")]
    console = Console(record=True, quiet=True, width=200)
    with pytest.raises(RehearsalError, match="image-missing"):
        run_waves([wave], stack, console)
    ran = [row for row in report.read_text().splitlines() if "seen now" in row]
    assert len(ran) == 2
