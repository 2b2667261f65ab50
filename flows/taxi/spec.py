"""What `flows.lifecycle` has to know of the trip-duration model."""

import polars as pl
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from flows.lifecycle.spec import Limit, Metric, ModelSpec, Monitoring, Values, distance
from flows.taxi.contract import DURATIONS
from flows.taxi.features import MAX_MILES, TRIP_COLUMNS
from flows.taxi.models import TRUSTED_TYPES
from flows.taxi.served import Trip

PLACE = "flows.taxi.spec:SPEC"


def rmse(true: Values, predicted: Values) -> float:
    return float(root_mean_squared_error(true, predicted))


def mae(true: Values, predicted: Values) -> float:
    return float(mean_absolute_error(true, predicted))


SPEC = ModelSpec(
    name="taxi-trip-duration",
    about=(
        "Minutes that a trip of New York's green taxis takes, from its raw record as TLC publishes "
        "it. Registered by the flow taxi-train; the alias `champion` is on the version in use."
    ),
    metrics=(
        Metric("rmse", "min", higher_is_better=False, score=rmse),
        Metric("mae", "min", higher_is_better=False, score=mae),
    ),
    target="duration",
    # as polars: for one row, pandas costs three times what the model does
    model_input=lambda trips: trips.select(TRIP_COLUMNS),
    row_error=distance,
    segments={"pickup zone": pl.col("PULocationID")},
    monitoring=Monitoring(
        columns={
            "pickup zone": pl.col("PULocationID").cast(pl.String),
            "dropoff zone": pl.col("DOLocationID").cast(pl.String),
            "trip distance": pl.col("trip_distance"),
            "hour": pl.col("lpep_pickup_datetime").dt.hour(),
            "weekday": pl.col("lpep_pickup_datetime").dt.weekday(),
            "fare": pl.col("fare_amount"),
        },
        truth=pl.when(
            pl.col("duration").is_between(*DURATIONS),
            pl.col("trip_distance").is_between(0, MAX_MILES, closed="right"),
        ).then(pl.col("duration")),
        identity=TRIP_COLUMNS,
        stability=Limit(
            0.1, "from one month to another it is 0.03 at most; trips half as long again give 0.26"
        ),
        missing=Limit(0.05, "of what a model needs, hardly a row in 1,000 lacks a value"),
        unknown=Limit(0.01, "a zone that the reference hasn't has a row in 1,000 of a month"),
        quarantined=Limit(0.05, "a row in 10,000 can't be answered"),
        volume=Limit(2, "months differ by a tenth; half of one or two of them is a fault"),
        error=Limit(0.15, "from one month to another it is 0.05 at most"),
    ),
    trusted_types=tuple(TRUSTED_TYPES),
    served=Trip,
)
