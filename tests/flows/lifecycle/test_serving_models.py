"""Which version is served: the alias', once it can answer; until then the one that was."""

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from prometheus_client import CollectorRegistry
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flows.lifecycle import serving_models
from flows.lifecycle.champion import CONTENT_TAG
from flows.lifecycle.registry import LINEAGE_TAG, promote, roll_back
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.serving_models import Watch, use_one_thread
from tests.flows.lifecycle.models import Pipeline, wrong_by

EXAMPLE = pl.DataFrame({"x": [1.5]})


def value(registry: CollectorRegistry, name: str) -> float:
    return registry.get_sample_value(f"trainyard_serving_{name}") or 0.0


def moved(pipeline: Pipeline, model: Any) -> str:
    """Register a version, and make it the champion whatever it is; gives its number."""
    number = pipeline.register(model)
    promote(pipeline.client, pipeline.spec.name, number, {})
    return number


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def watch(pipeline: Pipeline, metrics: Metrics, caplog: pytest.LogCaptureFixture) -> Watch:
    """Version 1 is served."""
    caplog.set_level(logging.INFO, "flows.lifecycle")
    moved(pipeline, 1.0)
    found = Watch(pipeline.client, pipeline.spec, "champion", EXAMPLE, metrics)
    found.look()
    assert served(found) == "1"
    return found


def served(watch: Watch) -> str:
    assert watch.current
    return watch.current.version


def test_a_promotion_and_a_rollback_are_taken(
    watch: Watch, pipeline: Pipeline, metrics: Metrics
) -> None:
    moved(pipeline, 2.0)
    watch.look()
    assert served(watch) == "2"
    assert value(metrics.registry, "model_version") == 2
    roll_back(pipeline.client, pipeline.spec.name, "it is slow")
    watch.look()
    assert served(watch) == "1"
    assert watch.current
    assert watch.current.model.predict([[1.0]]) == [2.0]


class Foreign(LinearRegression):  # type: ignore[misc]
    """A class that the spec doesn't trust."""


def changed_files(pipeline: Pipeline) -> None:
    (pipeline.files(moved(pipeline, 2.0)) / "model.skops").write_bytes(b"other")


def changed_tag(pipeline: Pipeline) -> None:
    number = moved(pipeline, 2.0)
    pipeline.client.set_model_version_tag(pipeline.spec.name, number, CONTENT_TAG, "0" * 64)


def lost_files(pipeline: Pipeline) -> None:
    for file in pipeline.files(moved(pipeline, 2.0)).iterdir():
        file.unlink()


def foreign_class(pipeline: Pipeline) -> None:
    model = Foreign()
    model.__dict__.update(wrong_by(2.0).__dict__)
    moved(pipeline, model)


def other_input(pipeline: Pipeline) -> None:
    moved(pipeline, LinearRegression().fit([[1.0, 2.0]], [1.0]))


def no_lineage(pipeline: Pipeline) -> None:
    number = moved(pipeline, 2.0)
    pipeline.client.set_model_version_tag(pipeline.spec.name, number, LINEAGE_TAG, "{}")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (changed_files, "version 2 isn't what was registered"),
        (changed_tag, "version 2 isn't what was registered"),
        (lost_files, "0 files named MLmodel"),
        (foreign_class, "Foreign"),
        (other_input, "2 features"),
        (no_lineage, "Lineage"),
    ],
)
def test_a_version_that_cannot_be_trusted_or_loaded_is_refused_and_the_old_one_stays(
    spoil: Callable[[Pipeline], None],
    told: str,
    watch: Watch,
    pipeline: Pipeline,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(pipeline)
    caplog.clear()
    for _ in range(3):
        watch.look()
    assert served(watch) == "1"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{pipeline.spec.name}@champion is not taken: ")
    assert told in said
    assert said.endswith("; version 1 stays")
    # it is tried once, and again only later
    assert value(metrics.registry, "refused_versions_total") == 1
    moved(pipeline, 3.0)
    watch.look()
    assert served(watch) == "3"


def test_a_version_whose_files_were_away_is_taken_later(
    watch: Watch, pipeline: Pipeline, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline.files(moved(pipeline, 2.0))
    away = folder.rename(folder.with_name("away"))
    watch.look()
    away.rename(folder)
    watch.look()
    assert served(watch) == "1"
    monkeypatch.setattr(serving_models, "AGAIN", 0)
    watch.look()
    assert served(watch) == "2"


def test_while_mlflow_is_away_the_version_stays_and_the_lag_grows(
    watch: Watch,
    pipeline: Pipeline,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*_: object) -> None:
        raise MlflowException("API request failed\nwith a long reason")

    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.client, "get_model_version_by_alias", away)
        watch.look()
        watch.look()
    assert served(watch) == "1"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert value(metrics.registry, "alias_lag_seconds") >= 100
    watch.look()  # it is back
    assert value(metrics.registry, "alias_lag_seconds") == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"MLflow gives no version of {pipeline.spec.name}@champion: API request failed; "
        "version 1 stays"
    ]


def test_a_version_that_is_refused_is_told_by_the_lag_too(
    watch: Watch, pipeline: Pipeline, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_files(pipeline)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    watch.look()
    assert value(metrics.registry, "alias_lag_seconds") >= 100


def test_a_model_computes_in_one_thread() -> None:
    model = make_pipeline(StandardScaler(), RandomForestRegressor(2, n_jobs=-1))
    model.fit(np.arange(8.0).reshape(-1, 1), np.arange(8.0))
    use_one_thread(model)
    assert model[-1].n_jobs == 1
