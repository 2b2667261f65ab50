"""The two models, each one scikit-learn pipeline: raw trips in, minutes out."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from flows.taxi.features import (
    TRIP_COLUMNS,
    RouteAndDistance,
    TripFeatures,
    Trips,
)

# What a saved pipeline may hold besides scikit-learn's own classes; skops loads nothing else.
TRUSTED_TYPES = [
    "flows.taxi.features.RouteAndDistance",
    "flows.taxi.features.TripFeatures",
    "flows.taxi.models.TripModel",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
]


class TripModel(Pipeline):  # type: ignore[misc]
    """Raw trips in, minutes out; NaN for a trip that lacks what the model can't do without.

    The first step turns trips into numbers, and its `NEEDED` names the indispensable ones.
    """

    def predict(self, X: Trips, **params: object) -> NDArray[np.float64]:
        """Predict n trips, pandas or Polars, as either reads TLC's files: shape (n,)."""
        first, last = self.steps[0][1], self.steps[-1][1]
        values = first.transform(X)
        known = np.isfinite(values[:, first.NEEDED]).all(axis=1)
        minutes = np.full(len(values), np.nan)
        if known.any():
            values = values[known]
            for _, step in self.steps[1:-1]:
                values = step.transform(values)
            minutes[known] = last.predict(values)
        return minutes


def fit_baseline(months: Sequence[Callable[[], pl.DataFrame]]) -> Pipeline:
    """The tutorial's linear baseline: one-hot PU_DO and trip_distance.

    Args:
        months: each reads a month's rows that the course's filter keeps
            (`contract.CheckedMonth.course`); twice, one month at a time.
    """
    routes, linear = _least_squares(months)
    encode = ColumnTransformer(
        [("route", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough"
    ).fit(np.column_stack([routes, np.zeros(len(routes))]))
    return TripModel([("trips", RouteAndDistance()), ("encode", encode), ("linear", linear)])


def _least_squares(
    months: Sequence[Callable[[], pl.DataFrame]],
) -> tuple[NDArray[np.float64], LinearRegression]:
    """The routes in order, and the exact solution that LinearRegression's iterative solver stops
    short of on these data.

    With one column a route, least squares is the slope from each trip's distance to its route's
    means (Frisch and Waugh 1933, Lovell 1963), then each route's own level. Of all solutions
    scikit-learn takes the smallest: levels around their mean, which is what an unseen route gets.
    """
    miles, minutes = pl.col("miles"), pl.col("minutes")
    means = (
        pl.concat(
            _of_routes(read()).group_by("route").agg(pl.len(), miles.sum(), minutes.sum())
            for read in months
        )
        .group_by("route")
        .sum()
        .select("route", mean_miles=miles / pl.col("len"), mean_minutes=minutes / pl.col("len"))
        .sort("route")  # as the encoder's columns
    )
    apart, later = miles - pl.col("mean_miles"), minutes - pl.col("mean_minutes")
    together, alone = (
        pl.concat(
            _of_routes(read())
            .join(means, on="route")
            .select(together=(apart * later).sum(), alone=(apart * apart).sum())
            for read in months
        )
        .sum()
        .row(0)
    )
    slope = together / max(alone, np.finfo(float).tiny)
    level = (means["mean_minutes"] - slope * means["mean_miles"]).to_numpy()
    model = LinearRegression()
    model.intercept_ = level.mean()
    model.coef_ = np.append(level - model.intercept_, slope)
    model.n_features_in_ = len(model.coef_)
    return means["route"].to_numpy(), model


def _of_routes(trips: pl.DataFrame) -> pl.DataFrame:
    """Of the trips on a possible route: an unknown one's answer isn't learned from impossible
    ones.
    """
    route, miles = RouteAndDistance().transform(trips).T
    rows = pl.DataFrame({"route": route, "miles": miles, "minutes": trips["duration"]})
    return rows.filter(pl.col("route") >= 0)


def boosted_pipeline(features: TripFeatures, booster: bytes) -> Pipeline:
    """Fitted features and a booster (XGBoost's UBJSON) as one pipeline."""
    model = xgb.XGBRegressor()
    model.load_model(bytearray(booster))
    return TripModel([("trips", features), ("xgboost", model)])


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
    import skops.io  # the slowest import of all: not every run's start waits for it

    return bytes(skops.io.dumps(model))


def loads(data: bytes, trusted: Sequence[str] = tuple(TRUSTED_TYPES)) -> Pipeline | TripFeatures:
    """The model that `dumps` wrote.

    Raises:
        skops.io.exceptions.UntrustedTypesFoundException: it holds a class not in `trusted`.
    """
    import skops.io

    return skops.io.loads(data, trusted=list(trusted))
