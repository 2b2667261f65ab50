"""What the drills write, and how they count; the drills themselves are in tests/e2e/rehearsal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from rich.console import Console

from trainyard.rehearsal import drills
from trainyard.rehearsal.drills import (
    DRILLS,
    REPORT,
    THIRDS,
    WAVES,
    Result,
    chosen,
    most_at_once,
    title,
    written,
)
from trainyard.rehearsal.emulator_session import RehearsalError
from trainyard.tools.errors import StackError

KILLED = Result("flow-killed", "Flow killed", "a | b", 61.4, "2026-11-28, 1a2b3c4d5e6f")
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


def test_the_report_has_the_place_for_the_table() -> None:
    row = replace(KILLED, observed="a new row")
    assert "a new row" in written(REPORT.read_text(), [row])


def test_every_drill_has_a_name_for_people() -> None:
    titles = [title(drill) for drill in DRILLS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_each_drill_runs_in_one_wave() -> None:
    assert sorted(name for wave in WAVES for name in wave) == sorted(DRILLS)


def test_a_drill_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(StackError) as refused:
        chosen("flow-kiled")
    said = str(refused.value)
    assert "flow-kiled (flow-killed?)" in said
    assert all(name in said for name in DRILLS)


def test_a_choice_is_all_drills_one_or_todays_third() -> None:
    assert chosen("") == WAVES
    assert chosen("flow-killed") == (("flow-killed",),)
    assert chosen("today") in THIRDS
    assert sorted(name for third in THIRDS for wave in third for name in wave) == sorted(DRILLS)


def test_runs_at_once_are_counted_where_they_overlap() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def span(begin: int, end: int) -> tuple[datetime, datetime]:
        return start + timedelta(seconds=begin), start + timedelta(seconds=end)

    assert most_at_once([span(0, 10), span(10, 20), span(25, 30)]) == 1
    assert most_at_once([span(0, 10), span(5, 20), span(9, 12)]) == 3


def test_a_drill_that_fails_leaves_what_the_others_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Any, name: str, harm_done: Event) -> Result:
        harm_done.set()
        if name == "image-missing":
            raise RehearsalError("it was pulled after all")
        return replace(KILLED, name=name)

    report = tmp_path / "reliability.md"
    report.write_text(TABLE)
    monkeypatch.setattr(drills, "REPORT", report)
    monkeypatch.setattr(drills, "run_drill", run)
    monkeypatch.setattr(drills, "bring_up", lambda *_: None)
    wave = ("flow-killed", "image-missing", "flow-stopped")
    with pytest.raises(RehearsalError, match=r"image-missing: .*pulled after all"):
        drills.drill_all([wave], Any, Console(quiet=True))  # type: ignore[arg-type]
    ran = [row for row in report.read_text().splitlines() if "1a2b3c4d5e6f" in row]
    assert len(ran) == 2
