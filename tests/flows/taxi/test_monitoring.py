"""Months of one city stay within the trip model's limits; a change of the city doesn't."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from flows.lifecycle.holdout import held_out
from flows.lifecycle.monitoring import compare
from flows.lifecycle.scoring import Scored, answered_by
from flows.platform.contract import ContractError
from flows.taxi.batches import batches
from flows.taxi.contract import check
from flows.taxi.features import TripFeatures
from flows.taxi.models import boosted_pipeline
from flows.taxi.monitor import late_durations
from flows.taxi.search import search
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from tests.conftest import ROOT
from tests.flows.taxi.trained import in_memory

TLC = os.environ.get("TLC_DATA")
SEEDS = range(20)
ROWS = 12_000


def as_scored(raw: pl.DataFrame) -> pl.DataFrame:
    with TemporaryDirectory() as folder:
        file = Path(folder, "month.parquet")
        raw.write_parquet(file)
        return pl.concat(rows for rows, _ in batches(file, "the file"))


def past(train: pl.DataFrame, valid: pl.DataFrame, *months: pl.DataFrame) -> list[set[str]]:
    """What is past its limit in each month, for a model of the months 2023-01 and 2023-02."""
    fitted, chosen = (
        check(raw, month, month, 1).kept for raw, month in ((train, "2023-01"), (valid, "2023-02"))
    )
    unseen = held_out(chosen)
    features = TripFeatures().fit(fitted)
    numbers = (
        (features.transform(rows), rows["duration"].to_numpy())
        for rows in (fitted, chosen.filter(~unseen))
    )
    (trial,) = search(*in_memory(*numbers), 1, 0)
    model = boosted_pipeline(features, trial.booster or b"")
    reference, holdout, *scored = (
        answered_by(model, SPEC, rows)[0]
        for rows in (as_scored(valid), chosen.filter(unseen), *map(as_scored, months))
    )
    found = [compare(SPEC, reference, holdout, rows)[1] for rows in scored]
    return [{each.name for each in checks if each.past} for checks in found]


def slower(raw: pl.DataFrame) -> pl.DataFrame:
    """The same trips, half as long again in time."""
    start, end = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
    return raw.with_columns(lpep_dropoff_datetime=start + (end - start) * 1.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_months_of_one_city_are_within_the_limits_and_changes_are_not(seed: int) -> None:
    train, valid, next_month, autumn = (
        synthetic_month(month, ROWS, seed) for month in ("2023-01", "2023-02", "2023-03", "2023-10")
    )
    fares = next_month.with_columns(pl.col("fare_amount") * 2)
    assert past(train, valid, next_month, autumn, slower(next_month), fares) == [
        set(),
        set(),
        {"rmse where truth is known"},
        {"drift of fare"},
    ]


def test_another_city_is_past_the_limits() -> None:
    train, valid = (synthetic_month(month, ROWS, 42) for month in ("2023-01", "2023-02"))
    (found,) = past(train, valid, synthetic_month("2023-03", ROWS, 43))
    assert {"drift of pickup zone", "drift of dropoff zone"} <= found


@pytest.mark.skipif(not TLC, reason="TLC_DATA is not set: name a folder with TLC's months")
def test_real_neighbouring_months_are_within_the_limits_and_changes_are_not() -> None:
    train, valid = (
        pl.read_parquet(Path(TLC or "", f"green_tripdata_{month}.parquet"))
        for month in ("2023-01", "2023-02")
    )
    longer = train.with_columns(pl.col("trip_distance") * 1.5)
    same, slow, far = past(train, valid, train, slower(train), longer)
    assert same == set()
    assert slow == {"rmse where truth is known"}
    assert {"drift of trip distance", "drift of prediction"} <= far


def test_a_file_without_fares_is_scored_and_lacks_them() -> None:
    month = synthetic_month("2023-01", 1000)
    rows = as_scored(month.drop("fare_amount"))
    assert rows["fare_amount"].null_count() == 1000
    assert as_scored(month)["fare_amount"].to_list() == month["fare_amount"].to_list()


@pytest.mark.parametrize(
    "fares", [pl.lit([1.0]), pl.lit(b"\xff"), pl.struct(dollars="fare_amount")], ids=str
)
def test_fares_that_are_no_numbers_stop_nothing(fares: pl.Expr) -> None:
    rows = as_scored(synthetic_month("2023-01", 1000).with_columns(fare_amount=fares))
    assert rows["fare_amount"].to_list() == [None] * 1000


def test_fares_that_cannot_be_read_stop_nothing(tmp_path: Path) -> None:
    file = tmp_path / "month.parquet"
    synthetic_month("2023-01", 1000).write_parquet(file)
    start = pq.read_metadata(file).row_group(0).column(9).data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    file.write_bytes(content)
    whole = pl.concat(rows for rows, _ in batches(file, "the file"))
    assert whole["fare_amount"].to_list() == [None] * 1000


def test_an_empty_file_of_late_drop_offs_is_refused(tmp_path: Path) -> None:
    synthetic_month("2023-01", 1000).clear().write_parquet(
        tmp_path / "green_tripdata_2023-01.parquet"
    )
    scored = Scored(
        model=SPEC.name,
        version="1",
        month="2023-01",
        data="elsewhere",
        sha256="another",
        flow_run="run",
        rows=1000,
        quarantined={},
        scores="scores",
        quarantine="quarantine",
    )
    with pytest.raises(ContractError, match=r"2023-01\.parquet: no rows; fetch"):
        late_durations(scored, str(tmp_path), str(tmp_path))


def test_a_month_is_monitored_before_a_champion_is_chosen_on_it() -> None:
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    times = {
        each["name"]: each["schedules"][0]["cron"].split()
        for each in listed
        if each["name"].startswith("taxi-")
    }
    ordered = [times[name] for name in ("taxi-score", "taxi-monitor", "taxi-train")]
    assert [hour for _, hour, *_ in ordered] == sorted((hour for _, hour, *_ in ordered), key=int)
    assert len({tuple(days) for _, _, *days in ordered}) == 1
