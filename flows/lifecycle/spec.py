"""What a pipeline says about its model, so that `flows.lifecycle` can serve any of them."""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Values = NDArray[Any]


class SpecError(ValueError):
    """No ModelSpec is where one should be: the message names the place."""


@dataclass(frozen=True)
class Metric:
    """How good predictions are."""

    name: str
    unit: str
    """Empty for a share or a count."""
    higher_is_better: bool
    score: Callable[[Values, Values], float]
    """From n true values and n answers; NaN where these say nothing, as of rows of one class."""

    def show(self, value: float) -> str:
        return f"{value:.4g} {self.unit}".strip()


def distance(true: Values, predicted: Values) -> Values:
    """The error of each row, for numbers."""
    return np.asarray(np.abs(true - predicted))


def mistaken(true: Values, predicted: Values) -> Values:
    """The error of each row, for classes: 1 where it is the wrong one."""
    return np.asarray(true != predicted, dtype=float)


def predicted(model: Any, given: Any) -> Values:
    """The answers of a model that is asked for nothing else."""
    return np.asarray(model.predict(given))


@dataclass(frozen=True)
class Limit:
    """How far something may go, and why so far."""

    value: float
    reason: str


@dataclass(frozen=True)
class Monitoring:
    """What a month's scores are watched for: past one of these limits, the model trains again."""

    columns: Mapping[str, pl.Expr]
    """Title -> a column of the scores: numbers are compared by tenths, other things by value."""
    truth: pl.Expr
    """The true values that count, null for other rows: what the model isn't made for."""
    identity: tuple[str, ...]
    """Columns that tell one row from another, by which truth that comes later finds its row."""
    stability: Limit
    """Population stability index of a column, or of the predictions."""
    missing: Limit
    """Share of rows that lack a value, beyond the reference's share."""
    unknown: Limit
    """Share of rows with a category that the reference hasn't."""
    quarantined: Limit
    """Share of rows that the model couldn't answer."""
    volume: Limit
    """How many times as many rows as the reference, or as few."""
    error: Limit
    """How much worse the first metric is than on the holdout, as a share of it."""


class ServedRow(BaseModel):
    """A row that a served model is asked about: a pipeline's own has a field a column.

    Fields are of int, float, str, bool or NaiveDatetime, or None beside it, with the ranges beyond
    which the batch scorer would quarantine the row, and with one of `examples` each.
    """

    # a number is no text, and NaN and infinity are no numbers
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ModelSpec:
    """A registered model, as benchmarks, gate and registry need to know it.

    The registry has the place of this object (`flows.wine.train:SPEC`) as a tag.
    """

    name: str
    """In MLflow's registry, and in names of Prefect's artifacts: lower case, digits, dashes."""
    about: str
    """What it answers, for whom: the registered model's description."""
    metrics: tuple[Metric, ...]
    """The first one decides which model is better."""
    target: str
    """The holdout's column with the true values."""
    model_input: Callable[[pl.DataFrame], Any]
    """From n rows of the holdout to what the model's `predict` takes."""
    row_error: Callable[[Values, Values], Values]
    """From n true values and n answers to n errors: which rows are the worst."""
    answer: Callable[[Any, Any], Values] = predicted
    """From a model and its input of n rows to the n answers that metrics score, (n,) or (n, k)."""
    answers: tuple[str, ...] = ("prediction",)
    """Names of the k answers, as columns of scores."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Benchmark -> how bad it may be: at least for metrics where higher is better, else at most."""
    segments: Mapping[str, pl.Expr] = field(default_factory=dict)
    """Title -> what divides the holdout's rows into groups that get a metric each."""
    monitoring: Monitoring | None = None
    trusted_types: tuple[str, ...] = ()
    """Classes beside scikit-learn's own that the model may hold."""
    served: type[ServedRow] | None = None
    """What `trainyard model serve` takes; its fields are the columns that `model_input` needs."""
    shadowed_requests: int = 0
    """So many logged requests a better version has to answer in shadow before it is promoted."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise SpecError(f"model name {self.name!r}: write lower case, digits and single dashes")
        if not self.metrics:
            raise SpecError(f"{self.name}: give at least one metric; the first one decides")


def pandas_frame(rows: pl.DataFrame) -> pd.DataFrame:
    """The same columns in pandas; polars' own way needs pyarrow, which a flow image lacks."""
    return pd.DataFrame({name: rows[name].to_numpy() for name in rows.columns})


def load_spec(place: str) -> ModelSpec:
    """Import the spec that a registered model names, such as `flows.wine.train:SPEC`.

    Raises:
        SpecError: it isn't of this repository's `flows`, or isn't there.
    """
    module, _, name = place.partition(":")
    # the registry can be written by others: they must not choose what is imported
    if not module.startswith("flows.") or not name.isidentifier():
        raise SpecError(f"{place!r} names no spec of this repository: write flows.<pipeline>:SPEC")
    try:
        spec = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"no spec at {place}: {error}; is this the code that trained it?"
        ) from error
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"{place} is no ModelSpec but a {type(spec).__name__}")
    return spec
