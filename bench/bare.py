"""The honest yardstick: a script that does the same with the same libraries, and nothing else.

Same features, same rows, same parameters; no contract, no quarantine, nothing that is kept.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from bench.result import Result
from flows.taxi.search import BOOST_ROUNDS, EARLY_STOPPING_ROUNDS, FIXED_PARAMS

MINUTES = (
    pl.col("lpep_dropoff_datetime") - pl.col("lpep_pickup_datetime")
).dt.total_microseconds() / 60e6
PICKUP = pl.col("lpep_pickup_datetime").dt
NUMBERS = (
    pl.col("PULocationID", "DOLocationID"),
    pl.when(pl.col("trip_distance").is_between(0, 100, closed="right")).then("trip_distance"),
    (PICKUP.hour() + PICKUP.minute() / 60).alias("hour"),
    PICKUP.weekday().alias("weekday"),
)


def load(path: Path) -> pl.DataFrame:
    """A raw month's trips of 1 to 60 minutes."""
    trips = pl.scan_parquet(path).with_columns(duration=MINUTES)
    return (
        trips.filter(pl.col("duration").is_between(1, 60))
        .drop_nulls(["PULocationID", "DOLocationID", "trip_distance"])
        .collect()
    )


def _routes(trips: pl.DataFrame) -> NDArray[np.float64]:
    """The linear model's two columns: the route as a number, and the distance."""
    route = pl.col("PULocationID") * 1000 + pl.col("DOLocationID")
    return trips.select(route, "trip_distance").cast(pl.Float64).to_numpy()


def run(train: Path, valid: Path, params: Mapping[str, object]) -> Result:
    """Fit both models to one month and validate them on another; `params` are XGBoost's."""
    start = time.perf_counter()
    train_trips, valid_trips = load(train), load(valid)
    x_train, x_valid = (
        trips.select(NUMBERS).cast(pl.Float32).to_numpy() for trips in (train_trips, valid_trips)
    )
    y_train, y_valid = (trips["duration"].to_numpy() for trips in (train_trips, valid_trips))
    featured = time.perf_counter()

    encode = ColumnTransformer(
        [("route", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough"
    )
    linear = make_pipeline(encode, LinearRegression()).fit(_routes(train_trips), y_train)
    linear_rmse = root_mean_squared_error(y_valid, linear.predict(_routes(valid_trips)))
    fitted = time.perf_counter()

    train_matrix = xgb.QuantileDMatrix(x_train, label=y_train)
    valid_matrix = xgb.QuantileDMatrix(x_valid, label=y_valid, ref=train_matrix)
    booster = xgb.train(
        {**FIXED_PARAMS, **params},
        train_matrix,
        num_boost_round=BOOST_ROUNDS,
        evals=[(valid_matrix, "validation")],
        early_stopping_rounds=EARLY_STOPPING_ROUNDS,
        verbose_eval=False,
    )
    xgboost_rmse = root_mean_squared_error(y_valid, booster.inplace_predict(x_valid))
    return Result(
        features_seconds=featured - start,
        linear_seconds=fitted - featured,
        xgboost_seconds=time.perf_counter() - fitted,
        linear_rmse=float(linear_rmse),
        xgboost_rmse=float(xgboost_rmse),
    )
