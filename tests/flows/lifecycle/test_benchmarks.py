"""What is measured of a model, and which benchmarks fail a run."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from flows.lifecycle.benchmarks import (
    METADATA,
    METRIC,
    BenchmarkError,
    Measured,
    over_limits,
    run,
)
from flows.lifecycle.spec import Metric, ModelSpec, Values
from tests.flows.lifecycle.models import CLOSENESS, MAE, SPEC, things, wrong_by


def measured(
    tag: str, spec: ModelSpec = SPEC, rows: pl.DataFrame | None = None, **model: Any
) -> dict[str, Measured]:
    file = skops.io.dumps(wrong_by(model.get("grams", 0.0)))
    return {each.name: each for each in run(tag, spec, file, things() if rows is None else rows)}


def test_the_metrics_are_of_all_rows_of_the_worst_tenth_and_of_each_segment() -> None:
    rows = things()
    errors = np.abs(rows["y"] - rows["x"]).to_numpy()
    low = (rows["shelf"] == "low").to_numpy()
    found = measured(METRIC, rows=rows)
    expected = {
        "mae": errors.mean(),
        "closeness": -errors.mean(),
        "mae_worst_decile": np.sort(errors)[-20:].mean(),
        "mae where shelf is low": errors[low].mean(),
        "mae where shelf is high": errors[~low].mean(),
    }
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
    assert {name for name, each in found.items() if each.unit == "g"} == expected.keys() - {
        "closeness"
    }


def test_small_segments_say_nothing_and_of_many_the_largest_are_shown() -> None:
    labels = [f"s{i}" for i in range(12) for _ in range(20 + i)] + ["tiny"] * 19 + [None] * 25
    rows = things(400).head(len(labels)).with_columns(shelf=pl.Series(labels))
    found = [name for name in measured(METRIC, rows=rows) if " where " in name]
    assert len(found) == 10
    assert found[0] == "mae where shelf is s11"
    assert "mae where shelf is missing" in found
    assert "mae where shelf is tiny" not in found
    assert "mae where shelf is s1" not in found


def test_a_segment_that_a_metric_has_no_value_on_is_left_out() -> None:
    def of_low(true: Values, predicted: Values) -> float:
        return float(predicted.min()) if true.min() < 5 else float("nan")

    rows = things().with_columns(shelf=pl.when(pl.col("y") < 5).then(pl.lit("low")))
    metric = Metric("of_low", "", higher_is_better=True, score=of_low)
    worst = replace(SPEC, metrics=(metric,), row_error=lambda true, predicted: true)
    assert measured(METRIC, worst, rows).keys() == {"of_low", "of_low where shelf is low"}


def test_metrics_score_what_the_spec_asks_the_model_for() -> None:
    def answer(model: Any, given: Any) -> Values:
        return np.column_stack([model.predict(given), model.predict(given) + 1])

    shifted = Metric(
        "shifted", "", higher_is_better=False, score=lambda t, a: MAE.score(t, a[:, 1])
    )
    spec = replace(SPEC, answer=answer, metrics=(shifted,), row_error=lambda t, a: t)
    assert measured(METRIC, spec, grams=-1.0)["shifted"].value == measured(METRIC)["mae"].value
    with pytest.raises(BenchmarkError, match="the model has no answer for"):
        measured(METRIC, spec, grams=float("nan"))


def test_the_metadata_is_size_load_time_and_time_per_row() -> None:
    found = measured(METADATA)
    percentiles = [f"inference_{of}_p{p}" for of in ("row", "batch") for p in (50, 95)]
    assert found.keys() == {"model_size", "load_time", *percentiles}
    assert found["model_size"].value == len(skops.io.dumps(wrong_by(0.0)))
    assert found["inference_row_p50"].value <= found["inference_row_p95"].value
    assert found["inference_row_p50"].unit == "µs per row"


def test_times_are_microseconds_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: LinearRegression, rows: Any) -> Any:
        time.sleep(0.02)
        return rows

    monkeypatch.setattr(LinearRegression, "predict", slow)
    found = measured(METADATA, rows=things(100))
    assert 20_000 <= found["inference_row_p50"].value < 200_000
    assert 200 <= found["inference_batch_p50"].value < 2_000


def broken(*_: object) -> float:
    raise ZeroDivisionError("no rows of that kind")


def test_a_benchmark_that_raises_is_named_with_its_reason() -> None:
    metric = Metric("ratio", "", higher_is_better=True, score=broken)
    with pytest.raises(BenchmarkError, match=r"benchmark metrics failed: .*no rows of that kind"):
        measured(METRIC, replace(SPEC, metrics=(MAE, metric)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    metric = Metric("ratio", "", higher_is_better=True, score=lambda true, predicted: value)
    with pytest.raises(BenchmarkError, match=f"ratio gave {value}, which is no number"):
        measured(METRIC, replace(SPEC, metrics=(MAE, metric)))


def test_a_model_without_an_answer_is_refused() -> None:
    said = "the model has no answer for 200 of 200 rows"
    with pytest.raises(BenchmarkError, match=said):
        measured(METRIC, grams=float("nan"))


@pytest.mark.parametrize(
    "of", ["closeness", "closeness_worst_decile", "closeness where shelf is low"]
)
def test_a_limit_is_a_floor_for_what_is_better_the_higher(of: str) -> None:
    """Also of the worst tenth and of segments."""
    found = [*measured(METRIC, replace(SPEC, metrics=(CLOSENESS,))).values()]
    (value,) = (each.value for each in found if each.name == of)
    assert over_limits(found, {of: value}) == []
    assert over_limits(found, {of: value - 1}) == []
    (said,) = over_limits(found, {of: value + 1})
    assert said == f"{of} {value:.4g}, and at least {value + 1:g} is allowed"


def test_a_limit_is_a_ceiling_for_errors_and_for_cost() -> None:
    found = [Measured(name="mae", value=2, unit="g"), Measured(name="model_size", value=9)]
    assert over_limits(found, {"mae": 2, "model_size": 9}) == []
    assert over_limits(found, {"mae": 1, "model_size": 8}) == [
        "mae 2 g, and at most 1 is allowed",
        "model_size 9, and at most 8 is allowed",
    ]


def test_a_limit_on_what_nobody_measures_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="no benchmark measures mea; there is mae, size"):
        over_limits([Measured(name="mae", value=1), Measured(name="size", value=1)], {"mea": 1})


def test_answers_of_another_shape_are_refused() -> None:
    """Compared with the true values, they would make a table of n times n."""
    spec = replace(SPEC, answer=lambda model, given: model.predict(given)[:, np.newaxis])
    with pytest.raises(BenchmarkError, match=r"answers of shape \(200, 1\) for 200 rows"):
        measured(METRIC, spec)
