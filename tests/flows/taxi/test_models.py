from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from bench.tutorial import PrepareFeatures
from flows.taxi.features import TRIP_COLUMNS, RouteAndDistance, TripFeatures, Trips, model_input
from flows.taxi.models import (
    TRUSTED_TYPES,
    boosted_pipeline,
    dumps,
    fit_baseline,
    inference_time,
    loads,
    rmse,
)
from tests.flows.taxi.trained import Trained


class Dishonest(RouteAndDistance):
    """A class of nobody's."""


def tutorial_predictions(train: pl.DataFrame, valid: pl.DataFrame) -> np.ndarray:
    """What the tutorial's DictVectorizer and linear regression predict, solved exactly."""
    vectorizer = DictVectorizer(sparse=False)
    x_train, x_valid = (
        step(PrepareFeatures().transform(month.to_pandas()))
        for step, month in ((vectorizer.fit_transform, train), (vectorizer.transform, valid))
    )
    centre, y = x_train.mean(axis=0), train["duration"].to_numpy()
    # in units of its spread: absurd distances would cost the solver its digits
    spread = np.where(np.char.equal(vectorizer.feature_names_, "trip_distance"), x_train.std(0), 1)
    weights, *_ = np.linalg.lstsq((x_train - centre) / spread, y - y.mean(), rcond=None)
    return (x_valid - centre) / spread @ weights + y.mean()


def test_the_baseline_predicts_what_the_tutorials_model_solved_exactly_does(
    trained: Trained,
) -> None:
    train, valid = trained.train.course.head(1_500), trained.valid.course.head(1_500)
    first = pl.int_range(pl.len()) == 0
    train = train.with_columns(
        trip_distance=pl.when(first).then(178_920.0).otherwise("trip_distance")
    )
    predicted = fit_baseline([lambda: train]).predict(valid)
    np.testing.assert_allclose(predicted, tutorial_predictions(train, valid), rtol=0, atol=1e-5)
    seen = set(train.select("PULocationID", "DOLocationID").iter_rows())
    unseen = sum(r not in seen for r in valid.select("PULocationID", "DOLocationID").iter_rows())
    assert 0 < unseen < valid.height


def test_the_baseline_of_some_months_is_that_of_all_their_trips(trained: Trained) -> None:
    january, february = trained.train.course, trained.valid.course.head(700)
    months = [january.head(1), january.tail(-1), february, february.head(0)]
    apart = fit_baseline([partial(pl.DataFrame, month) for month in months])
    whole = fit_baseline([lambda: pl.concat(months)])
    given = trained.valid.kept
    np.testing.assert_allclose(apart.predict(given), whole.predict(given), rtol=1e-9)


def test_the_baseline_takes_pandas_too(trained: Trained) -> None:
    trips = trained.valid.kept.head(100)
    expected = trained.baseline.predict(trips)
    np.testing.assert_allclose(trained.baseline.predict(model_input(trips)), expected)


def test_xgboost_beats_the_baseline(trained: Trained) -> None:
    baseline, boosted = (rmse(m, trained.valid.kept) for m in (trained.baseline, trained.boosted))
    assert boosted < 0.95 * baseline


def test_rmse_is_in_minutes(trained: Trained) -> None:
    trips = trained.valid.kept.head(3)
    off = trained.baseline.predict(trips) + np.array([3.0, 0, -4])
    trips = trips.with_columns(duration=pl.Series(off))
    assert rmse(trained.baseline, trips) == pytest.approx((25 / 3) ** 0.5)


def test_inference_time_is_the_best_time_per_row_of_a_batch_without_the_answer() -> None:
    asked: list[pl.DataFrame] = []

    def predict(trips: pl.DataFrame) -> np.ndarray:
        asked.append(trips)
        return np.zeros(len(trips))

    trips = pl.DataFrame(dict.fromkeys((*TRIP_COLUMNS, "duration"), range(50)))
    seconds = inference_time(predict, trips, rows=20, repeats=4)
    assert 0 < seconds < 0.1
    assert [(batch.height, tuple(batch.columns)) for batch in asked] == [(20, TRIP_COLUMNS)] * 4


def test_saved_pipelines_predict_the_same(trained: Trained) -> None:
    trips = trained.valid.kept.head(500)
    for pipeline in (trained.baseline, trained.boosted):
        again = loads(dumps(pipeline))
        np.testing.assert_array_equal(again.predict(trips), pipeline.predict(trips))


def test_saved_features_give_the_same(trained: Trained) -> None:
    trips = trained.valid.course  # with zero and absurd distances
    again = loads(dumps(trained.features))
    np.testing.assert_array_equal(again.transform(trips), trained.features.transform(trips))


def test_an_unknown_class_in_a_saved_model_is_refused(trained: Trained) -> None:
    with pytest.raises(UntrustedTypesFoundException, match="Dishonest"):
        loads(dumps(Pipeline([("trips", Dishonest())])))
    fewer = [name for name in TRUSTED_TYPES if not name.startswith("xgboost")]
    with pytest.raises(UntrustedTypesFoundException, match="xgboost"):
        loads(dumps(trained.boosted), trusted=fewer)


def test_a_boosted_pipeline_answers_for_trips_with_anything_missing(trained: Trained) -> None:
    trips = trained.valid.kept.head(1).with_columns(
        PULocationID=pl.lit(265), DOLocationID=pl.lit(1), trip_distance=pl.lit(0.0)
    )
    (minutes,) = boosted_pipeline(trained.features, trained.best.booster or b"").predict(trips)
    assert 0 < minutes < 60


# --- raw trips, as readers of TLC's files give them ----------------------------------------------

ZONES = ["PULocationID", "DOLocationID"]
READERS: dict[str, Callable[[pd.DataFrame], Trips]] = {
    "as written": lambda trips: trips,
    "polars": lambda trips: pl.DataFrame({c: trips[c].to_numpy() for c in trips.columns}),
    "floats": lambda trips: trips.astype(dict.fromkeys(ZONES, "float64")),
    "Int64": lambda trips: trips.astype(dict.fromkeys(ZONES, "Int64")),
    "nullable": lambda trips: trips.convert_dtypes(),
    "arrow": lambda trips: trips.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda trips: trips.astype(object),
    "unsigned": lambda trips: trips.astype(dict.fromkeys(ZONES, "uint64")),
    "narrow": lambda trips: trips.astype({**dict.fromkeys(ZONES, "uint16"), "trip_distance": "f4"}),
    "whole miles": lambda trips: trips.astype({"trip_distance": "int64"}),
    "seconds": lambda trips: trips.astype({"lpep_pickup_datetime": "datetime64[s]"}),
    "text of JSON": lambda trips: trips.astype({"lpep_pickup_datetime": str}),
}
MISSING: dict[str, Callable[[pd.DataFrame], Trips]] = {
    "floats": lambda trips: trips,
    "polars": lambda trips: pl.DataFrame(
        {c: trips[c].astype(object).where(trips[c].notna(), None).to_list() for c in trips.columns}
    ),
    "Int64": lambda trips: trips.astype(dict.fromkeys(ZONES, "Int64")),
    "nullable": lambda trips: trips.convert_dtypes(),
    "arrow": lambda trips: trips.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda trips: trips.astype(object).where(trips.notna(), None),
}


def whole_trips(trained: Trained) -> pd.DataFrame:
    trips = model_input(trained.valid.kept.head(50))
    return trips.assign(trip_distance=trips["trip_distance"].round() + 1, tip_amount=1.0)


def spoiled(trips: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The trips with other values in the first row; a column of integers becomes one of floats."""
    trips = trips.astype(dict.fromkeys(ZONES, "float64"))
    for column, value in values.items():
        trips.loc[0, column] = value
    return trips


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_trips_of_any_reader_get_the_same_answer(
    trained: Trained, read: Callable[[pd.DataFrame], Trips]
) -> None:
    trips = whole_trips(trained)
    for model in (trained.baseline, trained.boosted):
        answers = model.predict(read(trips))
        assert np.isfinite(answers).all()
        np.testing.assert_allclose(answers, model.predict(trips), rtol=1e-5)


@pytest.mark.parametrize("read", MISSING.values(), ids=MISSING.keys())
@pytest.mark.parametrize("zone", ZONES)
def test_a_missing_zone_is_an_unknown_route_and_its_neighbours_are_as_they_were(
    trained: Trained, zone: str, read: Callable[[pd.DataFrame], Trips]
) -> None:
    trips = whole_trips(trained)
    missing = read(spoiled(trips, **{zone: None}))
    unknown = spoiled(trips, **{zone: 999})
    for model in (trained.baseline, trained.boosted):
        answers = model.predict(missing)
        assert np.isfinite(answers).all()
        np.testing.assert_allclose(answers, model.predict(unknown))
        np.testing.assert_allclose(answers[1:], model.predict(trips)[1:])
    linear = trained.baseline[-1]
    level = linear.intercept_ + linear.coef_[-1] * trips["trip_distance"][0]
    assert trained.baseline.predict(missing)[0] == pytest.approx(level)


@pytest.mark.parametrize("zone", [0, -1, 266, 999, 1_075, 74.5, 2.0**40, float("inf")])
def test_a_zone_never_seen_is_no_other_route(trained: Trained, zone: float) -> None:
    trips = whole_trips(trained)
    odd, missing = (spoiled(trips, DOLocationID=value) for value in (zone, None))
    for model in (trained.baseline, trained.boosted):
        np.testing.assert_allclose(model.predict(odd), model.predict(missing))


@pytest.mark.parametrize("read", MISSING.values(), ids=MISSING.keys())
def test_a_trip_without_what_the_model_needs_gets_null_and_the_others_an_answer(
    trained: Trained, read: Callable[[pd.DataFrame], Trips]
) -> None:
    trips = whole_trips(trained)
    for model, column in (
        (trained.baseline, "trip_distance"),
        (trained.boosted, "lpep_pickup_datetime"),
    ):
        answers = model.predict(read(spoiled(trips, **{column: None})))
        assert np.isnan(answers).tolist() == [True] + [False] * 49
        np.testing.assert_allclose(answers[1:], model.predict(trips)[1:])
        np.testing.assert_array_equal(model.predict(trips.head(0)), [])
        nothing = pd.DataFrame({c: [None, None] for c in TRIP_COLUMNS})
        assert np.isnan(model.predict(nothing)).all()


def test_a_pickup_in_another_zone_of_time_is_refused_with_what_to_do(trained: Trained) -> None:
    trips = whole_trips(trained)
    aware = trips.assign(lpep_pickup_datetime=trips["lpep_pickup_datetime"].dt.tz_localize("UTC"))
    for frame in (aware, pl.DataFrame({"lpep_pickup_datetime": [datetime(2023, 1, 1)]})):
        if isinstance(frame, pl.DataFrame):
            frame = frame.select(pl.col("lpep_pickup_datetime").dt.replace_time_zone("UTC"))
            frame = frame.with_columns(PULocationID=1, DOLocationID=1, trip_distance=1.0)
        with pytest.raises(ValueError, match="is in UTC: give New York's local time"):
            trained.boosted.predict(frame)


def test_impossible_zones_of_the_training_month_are_not_the_answer_for_unknown_ones(
    trained: Trained,
) -> None:
    course = trained.train.course
    odd = course.head(500).with_columns(PULocationID=pl.lit(-3, pl.Int32), duration=pl.lit(59.0))
    trips = spoiled(whole_trips(trained), PULocationID=None)
    np.testing.assert_allclose(
        fit_baseline([lambda: pl.concat([course, odd])]).predict(trips),
        trained.baseline.predict(trips),
    )
    fitted = TripFeatures().fit(pl.concat([trained.train.kept, odd]))
    np.testing.assert_array_equal(fitted.routes_, trained.features.routes_)
