"""What the drills write, and how they count; the drills themselves are in tests/rehearsal."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.rehearsal import drills
from infra.rehearsal.drills import DRILLS, REPORT, WAVES, Result, most_at_once, title, written


def test_the_table_stands_between_its_marks_and_the_rest_is_left() -> None:
    head = "# Reliability\n\n<!-- generated: drills -->\nold\n<!-- end of drills -->\ntail\n"
    text = written(head, [Result("flow-killed", "Flow killed", "a | b", 61.4)])
    assert "| Flow killed (`flow-killed`) | a \\| b | 61 |\n" in text
    assert "old" not in text
    assert text.startswith("# Reliability\n")
    assert text.endswith("<!-- end of drills -->\ntail\n")
    assert written(text, [Result("flow-killed", "Flow killed", "a | b", 61.4)]) == text


def test_the_report_has_the_place_for_the_table() -> None:
    assert "a new row" in written(REPORT.read_text(), [Result("x", "x", "a new row", 1)])


def test_every_drill_has_a_name_for_people() -> None:
    titles = [title(drill) for drill in DRILLS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_each_drill_runs_in_one_wave() -> None:
    assert sorted(name for wave in WAVES for name in wave) == sorted(DRILLS)


def test_a_drill_that_is_not_there_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["drills", "--only", "flow-kiled"])
    with pytest.raises(SystemExit):
        drills.main()
    said = capsys.readouterr().err
    assert "flow-kiled" in said
    assert all(name in said for name in DRILLS)


def test_runs_at_once_are_counted_where_they_overlap() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def span(begin: int, end: int) -> tuple[datetime, datetime]:
        return start + timedelta(seconds=begin), start + timedelta(seconds=end)

    assert most_at_once([span(0, 10), span(10, 20), span(25, 30)]) == 1
    assert most_at_once([span(0, 10), span(5, 20), span(9, 12)]) == 3
