"""What `flows.lifecycle` has to know of the iris model."""

import polars as pl

from flows.iris.stages import TARGET, accuracy, f1_macro, model_input
from flows.lifecycle.spec import Metric, ModelSpec, mistaken

PLACE = "flows.iris.spec:SPEC"

SPEC = ModelSpec(
    name="iris-species",
    about="Which of three species an iris is, by four measurements of its flower.",
    metrics=(
        Metric("accuracy", "", higher_is_better=True, score=accuracy),
        Metric("f1_macro", "", higher_is_better=True, score=f1_macro),
    ),
    target=TARGET,
    model_input=model_input,
    row_error=mistaken,
    limits={"accuracy": 0.8},
    segments={TARGET: pl.col(TARGET)},
)
