"""Benchmarks of a trained model by nnbench: how good it is (`metric`), what it costs (`metadata`).

nnbench has the functions by their tags; it can't be combined with Prefect's decorators, so tasks
call `run`.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from nnbench import core, runner
from pydantic import BaseModel

from flows.lifecycle.spec import Metric, ModelSpec, Values

METRIC, METADATA = "metric", "metadata"
SEGMENTS_SHOWN = 10
SEGMENT_ROWS = 20
"""A segment with fewer rows says nothing."""
ROWS_TIMED, BATCHES_TIMED, BATCH = 50, 10, 10_000


# Relative; the same machine gives the same bits, another one rounds otherwise.
TOLERANCE = 1e-5


class BenchmarkError(ValueError):
    """A benchmark raised, or gave no number: names it."""


class Measured(BaseModel):
    """One number of a benchmark."""

    name: str
    value: float
    unit: str = ""
    higher_is_better: bool = False

    def __str__(self) -> str:
        number = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.4g}"
        return f"{number} {self.unit}".strip()


def run(tag: str, spec: ModelSpec, model_file: bytes, rows: pl.DataFrame) -> list[Measured]:
    """Run the benchmarks with a tag.

    Args:
        tag: METRIC or METADATA.
        model_file: a model with `predict`, as skops wrote it.
        rows: n rows of a holdout.

    Raises:
        BenchmarkError: one raised or gave no finite number.
    """
    import skops.io

    model = skops.io.loads(model_file, trusted=list(spec.trusted_types))
    given = {"spec": spec, "model": model, "model_file": model_file, "rows": rows}
    # by its name: a path is imported anew, which fails beside other imports
    found = runner.collect(__name__, tags=(tag,))
    result = runner.run(found, params=given, jsonifier=lambda parameters: {})
    measured = []
    for each in result.benchmarks:
        if each["error_occurred"]:
            raise BenchmarkError(f"benchmark {each['name']} failed: {each['error_message']}")
        measured += each["value"]
    for number in measured:
        if not np.isfinite(number.value):
            raise BenchmarkError(f"benchmark {number.name} gave {number.value}, which is no number")
    return measured


def predictions(spec: ModelSpec, model: Any, rows: pl.DataFrame) -> tuple[Values, Values]:
    """True values of n rows, of shape (n,), and the answers that the spec's metrics score.

    Raises:
        BenchmarkError: the model has no answer for some rows, or not one a row.
    """
    predicted = spec.answer(model, spec.model_input(rows))
    if predicted.shape[:1] != (len(rows),) or predicted.shape[1:] == (1,):
        raise BenchmarkError(
            f"the model gives answers of shape {predicted.shape} for {len(rows)} rows; the spec's "
            "`answer` has to give one a row, or several columns"
        )
    unanswered = int(pl.Series(predicted).is_null().sum())
    if predicted.dtype.kind == "f":
        unanswered += int((~np.isfinite(predicted)).sum())
    if unanswered:
        raise BenchmarkError(f"the model has no answer for {unanswered} of {len(rows)} rows")
    return rows[spec.target].to_numpy(), predicted


def same(answers: Values, others: Values) -> Values:
    """Which of n rows two models answer alike, but for how their machines round."""
    alike = np.asarray(answers == others)
    if answers.dtype.kind == "f":
        alike |= np.isclose(answers, others, rtol=TOLERANCE)
    return np.asarray(alike.reshape(len(alike), -1).all(axis=1))


@core.benchmark(tags=(METRIC,))
def metrics(spec: ModelSpec, model: Any, rows: pl.DataFrame) -> list[Measured]:
    """The spec's metrics over all rows."""
    true, predicted = predictions(spec, model, rows)
    return [_measured(metric, metric.name, true, predicted) for metric in spec.metrics]


@core.benchmark(tags=(METRIC,))
def worst_decile(spec: ModelSpec, model: Any, rows: pl.DataFrame) -> list[Measured]:
    """The deciding metric over the tenth of the rows that the model gets most wrong."""
    true, predicted = predictions(spec, model, rows)
    worst = np.argsort(spec.row_error(true, predicted))[-max(1, len(true) // 10) :]
    metric = spec.metrics[0]
    found = _measured(metric, f"{metric.name}_worst_decile", true[worst], predicted[worst])
    return [found] if np.isfinite(found.value) else []


@core.benchmark(tags=(METRIC,))
def by_segment(spec: ModelSpec, model: Any, rows: pl.DataFrame) -> list[Measured]:
    """The deciding metric of each segment, the largest ones."""
    true, predicted = predictions(spec, model, rows)
    metric, found = spec.metrics[0], []
    for title, segment in spec.segments.items():
        labels = rows.select(segment.cast(pl.String).fill_null("missing")).to_series()
        counts = labels.value_counts(sort=True).filter(pl.col("count") >= SEGMENT_ROWS)
        for label in counts[labels.name].head(SEGMENTS_SHOWN):
            of_it = (labels == label).to_numpy()
            name = f"{metric.name} where {title} is {label}"
            found.append(_measured(metric, name, true[of_it], predicted[of_it]))
    # one without a value, such as of one class only, says nothing either
    return [each for each in found if np.isfinite(each.value)]


@core.benchmark(tags=(METADATA,))
def model_size(model_file: bytes) -> list[Measured]:
    """The size of the model's file."""
    return [Measured(name="model_size", value=len(model_file), unit="bytes")]


@core.benchmark(tags=(METADATA,))
def load_time(spec: ModelSpec, model_file: bytes) -> list[Measured]:
    """How long loading takes, the file at hand and the libraries imported."""
    import skops.io

    start = time.perf_counter()
    skops.io.loads(model_file, trusted=list(spec.trusted_types))
    return [Measured(name="load_time", value=time.perf_counter() - start, unit="s")]


@core.benchmark(tags=(METADATA,))
def inference_time(spec: ModelSpec, model: Any, rows: pl.DataFrame) -> list[Measured]:
    """Microseconds a row, one row at a time and in batches: the median and the slow ones."""

    def timed(batch: Any) -> float:
        start = time.perf_counter()
        model.predict(batch)
        return time.perf_counter() - start

    single = [spec.model_input(rows[i % len(rows)]) for i in range(ROWS_TIMED)]
    batch = rows.head(BATCH)
    times = {
        "row": [timed(row) for row in single],
        "batch": [timed(given) / len(batch) for given in [spec.model_input(batch)] * BATCHES_TIMED],
    }
    return [
        Measured(
            name=f"inference_{of}_p{percent}",
            value=float(np.percentile(times[of], percent)) * 1e6,
            unit="µs per row",
        )
        for of in times
        for percent in (50, 95)
    ]


def _measured(metric: Metric, name: str, true: Values, predicted: Values) -> Measured:
    value = metric.score(true, predicted)
    better = metric.higher_is_better
    return Measured(name=name, value=value, unit=metric.unit, higher_is_better=better)


def over_limits(measured: list[Measured], limits: Mapping[str, float]) -> list[str]:
    """What is worse than it may be, a sentence each.

    Raises:
        BenchmarkError: a limit is on something that no benchmark measures.
    """
    values = {each.name: each for each in measured}
    if unknown := limits.keys() - values.keys():
        raise BenchmarkError(
            f"no benchmark measures {', '.join(sorted(unknown))}; there is {', '.join(values)}"
        )
    found = []
    for name, limit in limits.items():
        each = values[name]
        if each.value < limit if each.higher_is_better else each.value > limit:
            bound = "at least" if each.higher_is_better else "at most"
            found.append(f"{name} {each}, and {bound} {limit:g} is allowed")
    return found
