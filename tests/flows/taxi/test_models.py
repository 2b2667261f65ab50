import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from bench.tutorial import PrepareFeatures
from flows.taxi.features import TRIP_COLUMNS, RouteAndDistance, model_input
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
    predicted = fit_baseline(train).predict(valid)
    np.testing.assert_allclose(predicted, tutorial_predictions(train, valid), rtol=0, atol=1e-5)
    seen = set(train.select("PULocationID", "DOLocationID").iter_rows())
    unseen = sum(r not in seen for r in valid.select("PULocationID", "DOLocationID").iter_rows())
    assert 0 < unseen < valid.height


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
