"""What `flows.lifecycle` has to know of the trip-duration model."""

import polars as pl
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from flows.lifecycle.spec import Metric, ModelSpec, Values, distance
from flows.taxi.features import model_input
from flows.taxi.models import TRUSTED_TYPES

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
    model_input=model_input,
    row_error=distance,
    segments={"pickup zone": pl.col("PULocationID")},
    trusted_types=tuple(TRUSTED_TYPES),
)
