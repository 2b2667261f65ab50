from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from flows.taxi.features import (
    FEATURE_NAMES,
    TRIP_COLUMNS,
    RouteAndDistance,
    TripFeatures,
    model_input,
    route_ids,
)

MONDAY_HALF_PAST_SIX = datetime(2023, 1, 2, 18, 30, 59)


def trips(*miles: float | None, pickup: int = 74, dropoff: int = 75) -> pl.DataFrame:
    """One trip for each distance, all on one route."""
    return pl.DataFrame(
        {
            "lpep_pickup_datetime": [MONDAY_HALF_PAST_SIX] * len(miles),
            "PULocationID": [pickup] * len(miles),
            "DOLocationID": [dropoff] * len(miles),
            "trip_distance": list(miles),
        },
        schema={
            "lpep_pickup_datetime": pl.Datetime("us"),
            "PULocationID": pl.Int32,
            "DOLocationID": pl.Int32,
            "trip_distance": pl.Float64,
        },
    )


def miles_of(features: TripFeatures, given: Any) -> list[float]:
    return features.transform(given)[:, FEATURE_NAMES.index("trip_distance")].tolist()


def test_a_trip_becomes_its_zones_distance_hour_and_weekday() -> None:
    features = TripFeatures().fit(trips(1.5))
    assert features.get_feature_names_out().tolist() == list(FEATURE_NAMES)
    (row,) = features.transform(trips(2.5))
    assert row.tolist() == [74, 75, 2.5, 18.5, 1]
    assert row.dtype == np.float32


@pytest.mark.parametrize("miles", [0, -1, 100.01, 178_920.0, float("nan"), float("inf"), None])
def test_an_impossible_distance_is_replaced_by_the_routes_median(miles: float | None) -> None:
    features = TripFeatures().fit(trips(1, 2, 9))
    assert miles_of(features, trips(miles)) == [2]
    assert miles_of(features, trips(7, miles, 100, pickup=74)) == [7, 2, 100]


@pytest.mark.parametrize("rows", [200, 201])
def test_the_medians_of_some_months_are_those_of_all_their_trips(rows: int) -> None:
    rng = np.random.default_rng(rows)
    months = [
        trips(*rng.uniform(-1, 12, size).round(1), pickup=pickup)
        for size, pickup in ((rows, 74), (40, 74), (2, 7), (1, 7), (1, 9))
    ]
    features = TripFeatures().fit_months(months)
    every = pl.concat(months).filter(pl.col("trip_distance") > 0)
    wanted = every.group_by("PULocationID").agg(pl.col("trip_distance").median())
    for pickup, median in wanted.iter_rows():
        assert miles_of(features, trips(0, pickup=pickup)) == [np.float32(median)]
    assert features.routes_.tolist() == TripFeatures().fit(pl.concat(months)).routes_.tolist()


def test_impossible_distances_of_the_training_month_do_not_count_for_the_median() -> None:
    assert miles_of(TripFeatures().fit(trips(0, 0, 3, 5, 100_000, None)), trips(0)) == [4]


@pytest.mark.parametrize(("pickup", "dropoff"), [(75, 74), (1, 1), (265, 265), (74, 76)])
def test_an_impossible_distance_on_a_route_never_seen_is_missing(pickup: int, dropoff: int) -> None:
    features = TripFeatures().fit(trips(1, 2))
    assert np.isnan(miles_of(features, trips(0, pickup=pickup, dropoff=dropoff))).all()


def test_a_month_without_any_possible_distance_can_be_fitted() -> None:
    assert np.isnan(miles_of(TripFeatures().fit(trips(0)), trips(0))).all()


def test_no_trips_become_no_rows() -> None:
    features = TripFeatures().fit(trips(1))
    assert features.transform(trips()).shape == (0, len(FEATURE_NAMES))


def test_other_months_change_nothing_that_was_fitted() -> None:
    features = TripFeatures().fit(trips(1, 2, 9))
    features.transform(trips(50, 60))
    assert miles_of(features, trips(0)) == [2]


def test_what_is_given_stays_as_it_is() -> None:
    given = trips(0, 3)
    features = TripFeatures().fit(given)
    frame = model_input(given)
    features.transform(frame)
    assert given.equals(trips(0, 3))
    assert frame["trip_distance"].tolist() == [0, 3]


@pytest.mark.parametrize("zone", ["int16", "int32", "int64", "float64"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_and_polars_give_the_same(zone: str, unit: str) -> None:
    given = pl.concat([trips(0, 1.5, 300), trips(2.5, 0, pickup=7)])
    frame = model_input(given).astype(
        {
            "PULocationID": zone,
            "DOLocationID": zone,
            "lpep_pickup_datetime": f"datetime64[{unit}]",
        }
    )
    frame.index = pd.Index(range(10, 15))
    for transformer in (TripFeatures(), RouteAndDistance()):
        expected = transformer.fit(given).transform(given)
        np.testing.assert_array_equal(transformer.transform(frame), expected)
        np.testing.assert_array_equal(type(transformer)().fit(frame).transform(frame), expected)


def test_routes_are_told_apart_by_direction_and_digits() -> None:
    zones = [(1, 265), (12, 65), (265, 1), (126, 5), (1, 26)]
    given = pl.concat([trips(1, pickup=pickup, dropoff=dropoff) for pickup, dropoff in zones])
    assert len(set(route_ids(given))) == len(zones)
    small = given.with_columns(pl.col("PULocationID", "DOLocationID").cast(pl.Int16))
    assert route_ids(small).tolist() == route_ids(given).tolist()


def test_a_models_input_is_the_raw_trip_with_64_bit_zones() -> None:
    given = trips(1).with_columns(duration=pl.lit(5.0))
    frame = model_input(given)
    assert tuple(frame.columns) == TRIP_COLUMNS
    assert [str(frame[zone].dtype) for zone in ("PULocationID", "DOLocationID")] == ["int64"] * 2
