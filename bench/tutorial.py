"""The tutorial's own method, as the yardstick: what it does in the order it does it.

After particle1331's "Prefect" notebook, with the hyperparameters of the best run of the course that
it follows (mlops-zoomcamp). Prefect and MLflow are left out: both sides would pay for them alike.
"""

import time
from pathlib import Path

import pandas as pd
import xgboost as xgb
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline

from bench.result import Result

PARAMS: dict[str, object] = {
    "max_depth": 30,
    "learning_rate": 0.09585355369315604,
    "min_child_weight": 1.060597050922164,
    "reg_alpha": 0.018060244040060163,
    "reg_lambda": 0.011658731377413597,
    "objective": "reg:squarederror",
    "seed": 42,
}
"""The course's best run; the tree method stays XGBoost's default, as in the tutorial."""


class PrepareFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A trip as a dictionary: PU_DO, one text per route, and trip_distance."""

    def fit(self, trips: pd.DataFrame, y: object = None) -> "PrepareFeatures":
        """Nothing to learn."""
        return self

    def transform(self, trips: pd.DataFrame) -> list[dict[str, object]]:
        """One dictionary a trip."""
        trips = trips.copy()
        trips["PU_DO"] = trips.PULocationID.astype(str) + "_" + trips.DOLocationID.astype(str)
        return trips[["PU_DO", "trip_distance"]].to_dict(orient="records")  # type: ignore[return-value]


def load(path: Path) -> pd.DataFrame:
    """A raw month's trips of 1 to 60 minutes, with their duration."""
    trips = pd.read_parquet(path)
    # The one line that isn't the tutorial's: without it a single missing zone ends the run.
    trips = trips.dropna(subset=["PULocationID", "DOLocationID", "trip_distance"])
    trips["duration"] = trips.lpep_dropoff_datetime - trips.lpep_pickup_datetime
    trips["duration"] = trips.duration.dt.total_seconds() / 60
    return trips[(trips.duration >= 1) & (trips.duration <= 60)]


def run(train: Path, valid: Path) -> Result:
    """Train both of the tutorial's models on a raw month and validate them on another."""
    start = time.perf_counter()
    train_trips, valid_trips = load(train), load(valid)
    preprocessor = make_pipeline(PrepareFeatures(), DictVectorizer())
    preprocessor.fit(train_trips)
    x_train, x_valid = preprocessor.transform(train_trips), preprocessor.transform(valid_trips)
    y_train, y_valid = train_trips.duration.to_numpy(), valid_trips.duration.to_numpy()
    featured = time.perf_counter()

    linear = LinearRegression().fit(x_train, y_train)
    linear_rmse = root_mean_squared_error(y_valid, linear.predict(x_valid))
    fitted = time.perf_counter()

    train_matrix = xgb.DMatrix(x_train, label=y_train)
    valid_matrix = xgb.DMatrix(x_valid, label=y_valid)
    booster = xgb.train(
        PARAMS,
        train_matrix,
        num_boost_round=100,
        evals=[(valid_matrix, "validation")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )
    xgboost_rmse = root_mean_squared_error(y_valid, booster.predict(valid_matrix))
    return Result(
        features_seconds=featured - start,
        linear_seconds=fitted - featured,
        xgboost_seconds=time.perf_counter() - fitted,
        linear_rmse=float(linear_rmse),
        xgboost_rmse=float(xgboost_rmse),
    )
