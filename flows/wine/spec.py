"""What `flows.lifecycle` has to know of the wine model."""

import numpy as np
import polars as pl

from flows.lifecycle.spec import Metric, ModelSpec, Values, mistaken, pandas_frame
from flows.wine.served import Wine

PLACE = "flows.wine.spec:SPEC"
TARGET = "cultivar"


def accuracy(true: Values, predicted: Values) -> float:
    return float(np.mean(true == predicted))


def macro_f1(true: Values, predicted: Values) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average="macro", zero_division=0))


SPEC = ModelSpec(
    name="wine-cultivar",
    about="Which of three cultivars a wine was made from, by 13 chemical measurements.",
    metrics=(
        Metric("accuracy", "", higher_is_better=True, score=accuracy),
        Metric("macro_f1", "", higher_is_better=True, score=macro_f1),
    ),
    target=TARGET,
    model_input=lambda wines: pandas_frame(wines.drop(TARGET, strict=False)),
    row_error=mistaken,
    limits={"accuracy": 0.8},
    segments={"cultivar": pl.col(TARGET)},
    served=Wine,
)
