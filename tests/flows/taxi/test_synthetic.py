from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from scipy.sparse import hstack
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from flows.taxi.contract import CheckedMonth, check
from flows.taxi.synthetic import CARD_COLUMNS, SCHEMA, synthetic_month


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return synthetic_month("2023-01")


def checked(month: str) -> CheckedMonth:
    return check(synthetic_month(month), month, month, max_bad_share=0.1)


def minutes(raw: pl.DataFrame) -> pl.Series:
    spent = raw["lpep_dropoff_datetime"] - raw["lpep_pickup_datetime"]
    return spent.dt.total_seconds() / 60


def test_the_same_month_and_seed_are_the_same_rows(raw: pl.DataFrame) -> None:
    assert synthetic_month("2023-01").equals(raw)


def test_another_month_or_seed_has_other_rows(raw: pl.DataFrame) -> None:
    others = (
        synthetic_month("2023-02"),
        synthetic_month("2024-01"),
        synthetic_month("2023-01", seed=1),
    )
    for other in others:
        assert other.height == raw.height
        assert not other["trip_distance"].equals(raw["trip_distance"])


def test_rows_are_the_same_on_every_machine() -> None:
    raw = synthetic_month("2023-01", rows=1000)
    assert (raw["PULocationID"].sum(), raw["DOLocationID"].sum()) == (124648, 127038)
    assert minutes(raw).sum() == pytest.approx(19881.25)


def test_the_raw_schema_is_tlcs(raw: pl.DataFrame, tlc_data: Path) -> None:
    assert raw.schema == pl.read_parquet_schema(tlc_data / "green_tripdata_2023-01.parquet")


def test_the_schema_is_kept_through_parquet(raw: pl.DataFrame, tmp_path: Path) -> None:
    raw.write_parquet(tmp_path / "month.parquet")
    assert pl.read_parquet(tmp_path / "month.parquet").schema == SCHEMA


@pytest.mark.parametrize("rows", [100, 2500])
def test_every_kind_of_dirt_is_in_months_of_any_size(rows: int) -> None:
    raw = synthetic_month("2024-02", rows=rows)
    assert raw.height == rows
    spent = minutes(raw)
    start = raw["lpep_pickup_datetime"]
    dirt = {
        "no distance": raw["trip_distance"] == 0,
        "absurd distance": raw["trip_distance"] > 100,
        "ends before it starts": spent < 0,
        "seconds only": spent.is_between(0, 1, closed="left"),
        "over an hour": spent.is_between(60, 150),
        "almost a day": spent > 1300,
        "wrong year": start < datetime(2009, 1, 3),
        "month before": start.is_between(datetime(2024, 1, 20), datetime(2024, 2, 1)),
        "no zone": raw["DOLocationID"].is_null(),
        "no dropoff time": raw["lpep_dropoff_datetime"].is_null(),
        **{f"no {name}": raw[name].is_null() for name in CARD_COLUMNS},
    }
    assert [kind for kind, found in dirt.items() if not found.any()] == []


def test_dirt_is_about_as_frequent_as_tlcs(raw: pl.DataFrame) -> None:
    month = check(raw, "2023-01", "raw", max_bad_share=1)
    # TLC's 2023-01 and 2023-02: 6.2 to 6.5 % and 4.4 to 4.9 %; 6.3 to 7.4 %
    assert 0.05 < month.quarantined.height / raw.height < 0.08
    assert 0.04 < (raw["trip_distance"] == 0).mean() < 0.06
    assert 0.06 < raw["store_and_fwd_flag"].is_null().mean() < 0.075


def test_few_zones_have_most_of_the_pickups(raw: pl.DataFrame) -> None:
    counts = raw["PULocationID"].value_counts(sort=True)["count"]
    assert raw["PULocationID"].is_between(1, 265).all()
    assert 0.4 < counts.head(10).sum() / raw.height < 0.8
    assert len(counts) > 200


def test_trees_on_zones_distance_and_time_beat_the_linear_model_clearly() -> None:
    train, valid = checked("2023-01"), checked("2023-02")
    linear = rmse_of_linear(train.course, valid.kept)
    boosted = rmse_of_trees(train.kept, valid.kept)
    assert 4.5 < boosted < 5.5
    assert 6 < linear < 8


def rmse_of_linear(train: pl.DataFrame, valid: pl.DataFrame) -> float:
    """One-hot PU_DO and distance, as in the tutorial."""

    def route(trips: pl.DataFrame) -> np.ndarray:
        return (trips["PULocationID"] * 1000 + trips["DOLocationID"]).to_numpy().reshape(-1, 1)

    encoder = OneHotEncoder(handle_unknown="ignore").fit(route(train))
    x, y = (
        hstack([encoder.transform(route(trips)), trips.select("trip_distance").to_numpy()], "csr")
        for trips in (train, valid)
    )
    model = LinearRegression().fit(x, train["duration"].to_numpy())
    return rmse(model.predict(y), valid)


def rmse_of_trees(train: pl.DataFrame, valid: pl.DataFrame) -> float:
    x, y = (
        trips.select(
            "PULocationID",
            "DOLocationID",
            "trip_distance",
            pl.col("lpep_pickup_datetime").dt.hour().alias("hour"),
            pl.col("lpep_pickup_datetime").dt.weekday().alias("weekday"),
        ).to_numpy()
        for trips in (train, valid)
    )
    # one thread: on a busy machine several only wait for each other
    model = xgb.XGBRegressor(n_estimators=60, max_depth=8, learning_rate=0.15, n_jobs=1)
    return rmse(model.fit(x, train["duration"].to_numpy()).predict(y), valid)


def rmse(predicted: np.ndarray, trips: pl.DataFrame) -> float:
    return float(np.sqrt(np.mean((predicted - trips["duration"].to_numpy()) ** 2)))


def test_rush_hour_is_slower_than_night() -> None:
    kept = checked("2023-01").kept
    speed = kept.select(
        hour=pl.col("lpep_pickup_datetime").dt.hour(),
        mph=pl.col("trip_distance") / pl.col("duration") * 60,
    )
    rush, night = (
        speed.filter(pl.col("hour").is_between(*hours))["mph"].median()
        for hours in ((15, 17), (1, 4))
    )
    assert rush < 0.7 * night


@pytest.mark.parametrize("rows", [0, 99])
def test_too_few_rows_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=f"at least 100 rows, not {rows}"):
        synthetic_month("2023-01", rows=rows)


def test_what_is_not_a_month_is_refused() -> None:
    with pytest.raises(ValueError, match="'2023' is not a month"):
        synthetic_month("2023")
