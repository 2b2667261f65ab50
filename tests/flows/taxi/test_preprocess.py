"""A month that is split by days; whole runs of `preprocess` are in tests/e2e/flows."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from flows.lifecycle.holdout import Holdout, load_kept
from flows.platform.contract import ContractError
from flows.taxi import contract
from flows.taxi.preprocess import hold_out, split_days
from flows.taxi.report import Part, PreparedMonth
from flows.taxi.synthetic import synthetic_month

MONTH = "2023-02"
PICKUP = "lpep_pickup_datetime"
BORDER = datetime(2023, 2, 22)


def prepared(folder: Path, raw: pl.DataFrame) -> PreparedMonth:
    file = folder / "raw.parquet"
    raw.write_parquet(file)
    checked = contract.check(raw, MONTH, str(file), max_bad_share=1)
    for name in ("kept", "course"):
        getattr(checked, name).write_parquet(folder / f"{name}.parquet")
    return PreparedMonth(
        month=MONTH,
        file=str(file),
        sha256="0",
        kept=str(folder / "kept.parquet"),
        course=str(folder / "course.parquet"),
        quarantine=None,
        rows_read=checked.rows_read,
        rows_kept=checked.kept.height,
        counts=checked.counts,
    )


def split(
    folder: Path, month: PreparedMonth, durations: tuple[float, float] = contract.DURATIONS
) -> tuple[PreparedMonth, PreparedMonth, Holdout]:
    rows, holdout = hold_out.fn(month, durations, str(folder), str(folder))
    return *split_days.fn(month, rows, str(folder)), holdout


def read(uri: str) -> pl.DataFrame:
    return pl.read_parquet(uri)


def test_every_kept_row_is_trained_on_or_validated_on_or_held_out(tmp_path: Path) -> None:
    month = prepared(tmp_path, synthetic_month(MONTH, rows=3_000))
    train, valid, holdout = split(tmp_path, month)
    parts = [read(train.kept), read(valid.kept), load_kept(holdout)]
    assert min(len(part) for part in parts) > 400
    columns = parts[0].columns
    assert pl.concat(parts).sort(columns).equals(read(month.kept).sort(columns))
    assert train.part == Part(first=1, last=21, rows=len(parts[0]))
    assert valid.part == Part(first=22, last=28, rows=len(parts[1]))
    assert [part.label for part in (train, valid)] == [
        "2023-02, days 1 to 21",
        "2023-02, days 22 to 28",
    ]


def test_what_is_trained_on_is_earlier_than_what_it_is_validated_on(tmp_path: Path) -> None:
    train, valid, _ = split(tmp_path, prepared(tmp_path, synthetic_month(MONTH, rows=3_000)))
    for early, late in ((train.kept, valid.kept), (train.course, valid.course)):
        assert read(early)[PICKUP].max() < BORDER  # type: ignore[operator]
        assert read(late)[PICKUP].min() >= BORDER  # type: ignore[operator]


@pytest.mark.parametrize("durations", [contract.DURATIONS, (0.0, 90.0)], ids=str)
def test_no_model_sees_a_row_that_is_held_out(
    tmp_path: Path, durations: tuple[float, float]
) -> None:
    """Among the course's rows, which the linear model is trained on, there are all kept ones."""
    month = prepared(tmp_path, synthetic_month(MONTH, rows=3_000))
    train, valid, holdout = split(tmp_path, month, durations)
    unseen = load_kept(holdout)
    assert len(read(month.course).join(unseen, on=unseen.columns, how="semi")) >= len(unseen)
    for uri in (train.kept, train.course, valid.kept, valid.course):
        assert read(uri).join(unseen, on=unseen.columns, how="semi").is_empty()


@pytest.mark.parametrize(("early", "days"), [(True, "22 to 28"), (False, "1 to 21")])
def test_a_month_of_too_few_days_is_refused(tmp_path: Path, early: bool, days: str) -> None:
    raw = synthetic_month(MONTH, rows=3_000).filter((pl.col(PICKUP) < BORDER) == early)
    with pytest.raises(ContractError, match=rf"no row of 2023-02, days {days} can be used"):
        split(tmp_path, prepared(tmp_path, raw))
