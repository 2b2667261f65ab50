"""What `flows.lifecycle` has to know of the model of refunds."""

import numpy as np
import polars as pl

from flows.lifecycle.spec import Metric, ModelSpec, Values, mistaken, pandas_frame

PLACE = "flows.transactions.spec:SPEC"
TARGET = "refunded"
CATEGORICAL = ["category", "country", "currency"]
NUMERIC = ["amount_eur", "foreign", "hour", "weekday"]


def balanced_accuracy(true: Values, predicted: Values) -> float:
    """The mean of the shares that are right among refunded and among other transactions."""
    return float(np.mean([np.mean(predicted[true == each] == each) for each in np.unique(true)]))


def f1(true: Values, predicted: Values) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, zero_division=0))


def labelled(transactions: pl.DataFrame) -> pl.DataFrame:
    """Return ids, what the model is told of a transaction, and the target as 0 or 1."""
    target = (pl.col("status") == "refunded").cast(pl.Int64).alias(TARGET)
    numbers = pl.col(NUMERIC).cast(pl.Float64)
    return transactions.select("id", *CATEGORICAL, numbers, target)


SPEC = ModelSpec(
    name="transaction-refund",
    about="Whether a transaction will be refunded, by what is known when it is made.",
    metrics=(
        Metric("balanced_accuracy", "", higher_is_better=True, score=balanced_accuracy),
        Metric("f1", "", higher_is_better=True, score=f1),
    ),
    target=TARGET,
    model_input=lambda rows: pandas_frame(rows.select(CATEGORICAL + NUMERIC)),
    row_error=mistaken,
    limits={"balanced_accuracy": 0.6},
    segments={"category": pl.col("category")},
)
