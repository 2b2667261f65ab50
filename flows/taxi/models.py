"""The two models, each one scikit-learn pipeline: raw trips in, minutes out."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import skops.io
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flows.taxi.features import TRIP_COLUMNS, RouteAndDistance, TripFeatures

# What a saved pipeline may hold besides scikit-learn's own classes; skops loads nothing else.
TRUSTED_TYPES = [
    "flows.taxi.features.RouteAndDistance",
    "flows.taxi.features.TripFeatures",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
]


def fit_baseline(trips: pl.DataFrame) -> Pipeline:
    """The tutorial's linear baseline: one-hot PU_DO and trip_distance.

    Args:
        trips: the rows that the course's filter keeps (`contract.CheckedMonth.course`).
    """
    # The solver is iterative: unscaled, the few trips of 100,000 miles keep it from converging.
    encode = ColumnTransformer(
        [("route", OneHotEncoder(handle_unknown="ignore"), [0]), ("miles", StandardScaler(), [1])]
    )
    pipeline = Pipeline(
        [
            ("trips", RouteAndDistance()),
            ("encode", encode),
            ("linear", LinearRegression(tol=1e-10)),
        ]
    )
    pipeline.fit(trips, trips["duration"].to_numpy())
    return pipeline


def boosted_pipeline(features: TripFeatures, booster: bytes) -> Pipeline:
    """Fitted features and a booster (XGBoost's UBJSON) as one pipeline."""
    model = xgb.XGBRegressor()
    model.load_model(bytearray(booster))
    return Pipeline([("trips", features), ("xgboost", model)])


def rmse(pipeline: Pipeline, trips: pl.DataFrame) -> float:
    """Root mean squared error over n trips with a `duration`, in minutes."""
    return float(root_mean_squared_error(trips["duration"].to_numpy(), pipeline.predict(trips)))


def inference_time(
    predict: Callable[[pl.DataFrame], NDArray[np.floating]],
    trips: pl.DataFrame,
    rows: int = 10_000,
    repeats: int = 5,
) -> float:
    """Seconds per row of a batch prediction, raw trip to minutes: the best of `repeats`."""
    batch = trips.select(TRIP_COLUMNS).head(rows)

    def once() -> float:
        start = time.perf_counter()
        predict(batch)
        return time.perf_counter() - start

    return min(once() for _ in range(repeats)) / len(batch)


def dumps(model: Pipeline | TripFeatures) -> bytes:
    """A model as bytes that hold no code (skops, not pickle)."""
    return bytes(skops.io.dumps(model))


def loads(data: bytes, trusted: Sequence[str] = tuple(TRUSTED_TYPES)) -> Pipeline | TripFeatures:
    """The model that `dumps` wrote.

    Raises:
        skops.io.exceptions.UntrustedTypesFoundException: it holds a class not in `trusted`.
    """
    return skops.io.loads(data, trusted=list(trusted))
