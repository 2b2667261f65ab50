"""A scored month against its model's reference: what is past a limit is said, and nothing else."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest

from flows.lifecycle.batch import Batch
from flows.lifecycle.drift import shift
from flows.lifecycle.monitored_rows import MonitoringError, served_rows
from flows.lifecycle.monitoring import (
    Monitored,
    compare,
    monitor_month,
    with_truth,
)
from flows.lifecycle.monitoring_page import render
from flows.lifecycle.registry import LINEAGE_TAG
from flows.lifecycle.scoring import Scored, score_month
from flows.lifecycle.spec import Values
from flows.platform.artifact_store import artifact_path, read
from tests.flows.lifecycle.models import MAE, Pipeline, answered, mae, things
from tests.flows.lifecycle.models import REFERENCE_ROWS as ROWS

MONTH = "2026-05"
Change = Callable[[pl.DataFrame], pl.DataFrame]


def monitored(
    pipeline: Pipeline,
    change: Change = lambda rows: rows,
    late_truth: Callable[[Scored], pl.DataFrame | None] = lambda _: None,
) -> Monitored:
    """Score a changed month of things, and compare it."""
    pipeline.champion_of(0.0)
    rows = change(things(ROWS, seed=5))
    bad = rows.filter(pl.col("x").is_null()).with_columns(rule=pl.lit("no x"))
    month = [Batch(rows.drop_nulls("x"), bad)]
    score_month(pipeline.client, pipeline.spec, MONTH, "May", "a", month, pipeline.store, "run")
    return monitor_month(pipeline.client, pipeline.spec, MONTH, pipeline.store, "run 2", late_truth)


def names(found: Monitored) -> list[str]:
    return [check.name for check in found.past]


def test_a_month_like_the_reference_is_within_all_limits(pipeline: Pipeline) -> None:
    found = monitored(pipeline)
    assert names(found) == []
    assert found.summary.endswith(f"version 1 in {MONTH}: all within limits")
    assert (found.rows, found.truths, found.reference) == (ROWS, ROWS, "may")


@pytest.mark.parametrize(
    ("change", "past"),
    [
        (
            lambda rows: rows.with_columns(pl.col("x") * 1.5, y=pl.col("y") + pl.col("x") / 2),
            {"drift of x", "drift of prediction"},
        ),
        (lambda rows: rows.with_columns(shelf=pl.lit("low")), {"drift of shelf"}),
        (
            lambda rows: rows.with_columns(
                shelf=pl.when(pl.int_range(pl.len()) % 80 > 0)
                .then("shelf")
                .otherwise(pl.lit("new"))
            ),
            {"unknown shelf"},
        ),
        (
            lambda rows: rows.with_columns(
                shelf=pl.when(pl.int_range(pl.len()) % 10 > 0).then("shelf")
            ),
            {"missing shelf"},
        ),
        (
            lambda rows: rows.with_columns(x=pl.when(pl.int_range(pl.len()) % 5 > 0).then("x")),
            {"rows without a score"},
        ),
        (lambda rows: rows.with_columns(pl.col("y") + 2), {"mae where truth is known"}),
        (lambda rows: rows.with_columns(y=pl.lit(None, pl.Float64)), set()),
    ],
    ids=["x", "shelf", "unknown", "missing", "unanswered", "error", "no truth yet"],
)
def test_what_has_changed_is_past_its_limit(
    pipeline: Pipeline, change: Change, past: set[str]
) -> None:
    found = monitored(pipeline, change)
    assert set(names(found)) == past
    for check in found.past:
        assert f"{check.name} {check.found} (limit {check.limit})" in found.summary


@pytest.mark.parametrize(("share", "past"), [(0.4, True), (0.6, False), (1, False), (2.1, True)])
def test_half_as_many_rows_or_twice_as_many_are_within_the_limit(
    pipeline: Pipeline, share: float, past: bool
) -> None:
    rows = round(ROWS * share)
    found = monitored(pipeline, lambda _: things(rows - rows % 4, seed=6))
    assert names(found) == (["volume"] if past else [])


def test_categories_that_few_rows_lack_by_chance_are_within_the_limit(pipeline: Pipeline) -> None:
    watched = pipeline.spec.monitoring
    assert watched
    # 4,000 rows of 0 to 10: of thousandths, hardly any comes twice
    columns = {**watched.columns, "lot": pl.col("x").round(3).cast(pl.String)}
    spec = replace(pipeline.spec, monitoring=replace(watched, columns=columns))
    assert names(monitored(replace(pipeline, spec=spec))) == []


@pytest.mark.parametrize(("known", "past"), [(250, []), (ROWS, ["mae where truth is known"])])
def test_what_a_few_truths_say_may_be_luck(pipeline: Pipeline, known: int, past: list[str]) -> None:
    def changed(rows: pl.DataFrame) -> pl.DataFrame:
        worse = pl.col("x") + 1.3 * (pl.col("y") - pl.col("x"))
        return rows.with_columns(y=pl.when(pl.int_range(pl.len()) < known).then(worse))

    assert names(monitored(pipeline, changed)) == past


def test_one_mistake_after_none_is_luck(pipeline: Pipeline) -> None:
    def compared(mistakes: int) -> list[str]:
        rows = things(ROWS).with_columns(y=pl.col("x"), prediction=pl.col("x"))
        wrong = pl.when(pl.int_range(pl.len()) < mistakes).then(1.0).otherwise(0.0)
        month = rows.with_columns(y=pl.col("y") + wrong)
        return [check.name for check in compare(pipeline.spec, rows, rows, month)[1] if check.past]

    assert compared(1) == []
    assert compared(ROWS // 10) == ["mae where truth is known"]


def test_a_metric_may_need_more_rows_than_a_part_of_them_has(pipeline: Pipeline) -> None:
    def of_many(true: Values, given: Values) -> float:
        if len(true) < ROWS // 10:
            raise ValueError("y_true contains only one label")
        return mae(true, given)

    spec = replace(pipeline.spec, metrics=(replace(MAE, score=of_many),))
    rows = things(ROWS).with_columns(prediction=pl.col("x"))
    _, checks = compare(spec, rows, rows, rows.with_columns(pl.col("y") + 2))
    assert [check.name for check in checks if check.past] == ["mae where truth is known"]


def test_truth_that_comes_later_counts(pipeline: Pipeline) -> None:
    truth = things(ROWS, seed=5).with_columns(pl.col("y") + 2)
    asked: list[str] = []

    def late(scored: Scored) -> pl.DataFrame:
        asked.append(scored.sha256)
        return truth.reverse()

    found = monitored(pipeline, lambda rows: rows.with_columns(y=pl.lit(None, pl.Float64)), late)
    assert asked == ["a"]
    assert found.truths == ROWS
    assert names(found) == ["mae where truth is known"]


def test_late_truth_finds_its_rows() -> None:
    rows = pl.DataFrame(
        {"id": ["a", "b", "b", None, "c"], "y": [None, None, 9.0, None, None], "n": range(5)}
    )
    truth = pl.DataFrame({"id": [None, "b", "b", "a", "d"], "y": [4.0, 1.0, 2.0, 3.0, 5.0]})
    found = with_truth(rows, truth, ("id",), "y")
    assert found["y"].to_list() == [3.0, 1.0, 9.0, 4.0, None]
    assert found.columns == rows.columns
    assert found["n"].to_list() == list(range(5))


def test_late_truth_of_other_types_finds_its_rows(pipeline: Pipeline) -> None:
    months = things(ROWS, seed=5).with_columns(pl.col("x").round(2))

    def late(_: Scored) -> pl.DataFrame:
        return months.select("y", x=pl.col("x").cast(pl.Decimal(10, 2)))

    found = monitored(pipeline, lambda _: months.with_columns(y=pl.lit(None, pl.Float64)), late)
    assert found.truths == ROWS


def test_late_truth_of_other_rows_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(MonitoringError, match=f"have 0 of the {ROWS:,} rows of {MONTH} .* same"):
        monitored(pipeline, late_truth=lambda _: things(ROWS, seed=6))


def test_of_many_rows_a_part_is_compared_and_all_are_counted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.lifecycle.monitoring.MOST_ROWS", ROWS // 3)
    found = monitored(pipeline)
    assert (found.rows, found.truths, found.past) == (ROWS, ROWS, [])


def test_a_truth_that_is_no_number_is_not_known(pipeline: Pipeline) -> None:
    lacking = pl.when(pl.int_range(pl.len()) % 2 > 0).then("y").otherwise(float("nan"))
    found = monitored(pipeline, lambda rows: rows.with_columns(y=lacking))
    assert (found.truths, names(found)) == (ROWS // 2, [])


def test_the_page_stands_alone_and_shows_what_was_found(pipeline: Pipeline) -> None:
    found = monitored(pipeline, lambda rows: rows.with_columns(shelf=pl.lit("<b>low</b>")))
    assert found.page.endswith(f"monitoring/{pipeline.spec.name}/{MONTH}.html")
    page = read(artifact_path(found.page)).decode()
    assert len(page) < 2_000_000
    assert len(re.findall(r'<img alt="(?:x|shelf|prediction): ', page)) == 3
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "<b>low" not in page
    assert "drift of shelf" in page
    record = json.loads(read(artifact_path(found.page).with_suffix(".json")))
    assert Monitored.model_validate(record) == found


def test_signs_that_a_formula_would_have_are_shown_as_they_are(pipeline: Pipeline) -> None:
    prices = pl.Series(["$_$", "$$", "up to $10 or $^"] * 40)
    found = monitored(pipeline).model_copy(update={"shifts": [shift("a $_ b $", prices, prices)]})
    assert '<img alt="a $_ b $: ' in render(found)


def test_a_month_without_scores_is_refused(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.0)
    with pytest.raises(MonitoringError, match=f"no scores of {MONTH}: score the month first"):
        monitor_month(pipeline.client, pipeline.spec, MONTH, pipeline.store, "run", lambda _: None)


def test_a_version_without_a_reference_is_refused(pipeline: Pipeline) -> None:
    monitored(pipeline)
    lineage = pipeline.lineage().model_copy(update={"reference": None})
    pipeline.client.set_model_version_tag(
        pipeline.spec.name, "1", LINEAGE_TAG, lineage.model_dump_json()
    )
    with pytest.raises(MonitoringError, match="version 1 was trained without keeping a reference"):
        monitor_month(pipeline.client, pipeline.spec, MONTH, pipeline.store, "run", lambda _: None)


def test_the_scored_version_is_compared_with_its_own_reference(pipeline: Pipeline) -> None:
    monitored(pipeline)
    pipeline.decide(pipeline.register(0.0, "june"))
    again = monitor_month(
        pipeline.client, pipeline.spec, MONTH, pipeline.store, "run", lambda _: None
    )
    assert (again.version, again.reference) == ("1", "may")


def test_a_column_that_nothing_was_kept_of_is_refused(pipeline: Pipeline) -> None:
    watched = pipeline.spec.monitoring
    assert watched
    monitored(pipeline)
    more = replace(watched, columns={**watched.columns, "colour": pl.col("colour")})
    spec = replace(pipeline.spec, monitoring=more)
    with pytest.raises(MonitoringError, match=r"\(.*colour.*\): train again, and score"):
        monitor_month(pipeline.client, spec, MONTH, pipeline.store, "run", lambda _: None)


def test_a_column_that_cannot_be_compared_is_refused(pipeline: Pipeline) -> None:
    watched = pipeline.spec.monitoring
    assert watched
    monitored(pipeline)
    more = replace(watched, columns={"lists": pl.concat_list("x", "y")})
    spec = replace(pipeline.spec, monitoring=more)
    with pytest.raises(MonitoringError, match=r"names can't be compared .*: cast it there"):
        monitor_month(pipeline.client, spec, MONTH, pipeline.store, "run", lambda _: None)


def asked(pipeline: Pipeline, *x: float | None, **given: object) -> None:
    """Requests of the month, each of 100 rows and on a day of its own."""
    for day, start in enumerate(range(0, len(x), 100)):
        at = datetime(2026, 5, 1 + day % 31, 23, 59)
        pipeline.log(answered(*x[start : start + 100], **{"at": at, "grams": 0.0, **given}))


def monitor_requests(
    pipeline: Pipeline, late_truth: Callable[[Scored], pl.DataFrame | None] = lambda _: None
) -> Monitored:
    return monitor_month(
        pipeline.client, pipeline.spec, MONTH, pipeline.store, "run", late_truth, "served"
    )


def test_a_months_logged_requests_are_monitored_like_its_scores(pipeline: Pipeline) -> None:
    by_scores = monitored(pipeline, lambda rows: rows.with_columns(shelf=pl.lit("low")))
    x = things(ROWS, seed=5)["x"]
    asked(pipeline, *x)
    alike = monitor_requests(pipeline)
    assert (alike.version, alike.rows, alike.truths, names(alike)) == ("1", ROWS, 0, [])
    asked(pipeline, *(x + 20))
    found = monitor_requests(pipeline)
    assert names(found) == ["drift of x", "drift of prediction"]
    assert found.summary.startswith(f"{pipeline.spec.name} version 1 in {MONTH}'s requests: drift")
    # a page of its own, which says what it is of
    assert found.page.endswith(f"/{MONTH}-served.html")
    page = read(artifact_path(found.page)).decode()
    assert "8,000 rows of logged requests that version 1 has answered" in page
    assert "Not compared, because requests don&#x27;t have it: shelf, volume." in page
    assert "drift of shelf" in read(artifact_path(by_scores.page)).decode()
    record = json.loads(read(artifact_path(found.page).with_suffix(".json")))
    assert Monitored.model_validate(record) == found


def test_only_what_the_champion_answered_in_the_month_is_monitored(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0, 0.0)
    x = things(ROWS, seed=5)["x"].to_list()
    asked(pipeline, *x, *([None] * 300))
    asked(pipeline, *x[:100], version="2")
    asked(pipeline, *x[:200], version="2", alias="challenger")
    asked(pipeline, *x[:400], version="2", at=datetime(2026, 4, 30, 23, 59))
    asked(pipeline, *x[:400], version="2", at=datetime(2026, 6, 1))
    found = monitor_requests(pipeline)
    assert (found.version, found.rows) == ("1", ROWS + 300)
    assert "Other versions have answered 100 rows, which aren't here." in found.note
    (unanswered,) = [each for each in found.checks if each.name == "rows without a score"]
    assert unanswered.found == "6.98%"


def test_requests_get_the_truth_that_the_data_have_of_them(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.0)
    rows = things(ROWS, seed=5)
    asked(pipeline, *rows["x"])
    truth = rows.select("x", y=pl.col("x") + 9)
    found = monitor_requests(pipeline, lambda _: truth)
    assert (found.truths, names(found)) == (ROWS, ["mae where truth is known"])
    # of other rows there is none, and of what is asked there needn't be
    found = monitor_requests(pipeline, lambda _: truth.with_columns(pl.col("x") + 100))
    assert (found.truths, names(found)) == (0, [])


def test_of_many_requests_some_are_drawn_whole(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.lifecycle.monitored_rows.MOST_ROWS", 2000)
    pipeline.champion_of(0.0)
    asked(pipeline, *things(ROWS, seed=5)["x"])
    drawn = served_rows(pipeline.spec, MONTH, pipeline.store)
    assert drawn.scored.rows == ROWS
    assert 500 < len(drawn.rows) <= 2000
    assert set(drawn.rows["request_id"].value_counts()["count"]) == {100}


def test_a_month_without_requests_is_refused(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.0)
    asked(pipeline, 1.0, alias="challenger")
    asked(pipeline, None)
    told = f"no answered requests of {MONTH} in its log: serve it, `trainyard serve tested"
    with pytest.raises(MonitoringError, match=told):
        monitor_requests(pipeline)
