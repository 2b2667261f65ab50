"""The challenger in shadow: asked what the champion was asked, and never heard."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI

from flows.lifecycle import serving_shadow
from flows.lifecycle.registry import promote
from flows.lifecycle.request_log import REQUEST
from flows.lifecycle.serving import create_app
from flows.lifecycle.serving_log import RequestLog
from flows.lifecycle.serving_metrics import Metrics, ShadowMetrics
from flows.lifecycle.serving_models import Watch
from flows.lifecycle.serving_rows import Limits, RowReader
from flows.lifecycle.serving_shadow import Shadow
from flows.lifecycle.spec import Values
from tests.flows.lifecycle.models import Pipeline, answer_known


@dataclass
class Shadowed:
    """A champion behind HTTP, with its challenger in shadow; tests look at the aliases."""

    pipeline: Pipeline
    watch: Watch
    shadow: Shadow
    log: RequestLog
    metrics: Metrics
    app: FastAPI

    def look(self) -> None:
        self.watch.look()
        self.shadow.watch.look()

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, **given)

        return asyncio.run(answered())

    def ask(self, *x: float | None) -> httpx.Response:
        return self.send("POST", "/predict", json={"rows": [{"x": each} for each in x]})

    def predict(self, *x: float | None) -> Any:
        found = self.ask(*x)
        assert found.status_code == 200, found.text
        return found.json()

    def value(self, name: str, **labels: str) -> float:
        sample = self.metrics.registry.get_sample_value(f"trainyard_shadow_{name}", labels)
        return sample or 0.0

    def logged(self) -> pl.DataFrame:
        self.log.write(last=True)
        return pl.read_parquet(f"{self.pipeline.store}/served/**/*.parquet").sort("alias", "x")

    @property
    def shadowing(self) -> str | None:
        current = self.shadow.watch.current
        return current.version if current else None


def shadowed(pipeline: Pipeline, share: float = 1.0) -> Shadowed:
    spec, client = pipeline.spec, pipeline.client
    assert spec.served
    reader, metrics = RowReader(spec.served, Limits(seconds=5)), Metrics()
    example = reader.example_frame()
    watch = Watch(client, spec, "champion", example, metrics)
    log = RequestLog(pipeline.store, spec, [*reader.schema], share, metrics)
    shadow = Shadow(client, spec, example, log, ShadowMetrics(metrics.registry))
    app = create_app(watch, reader, metrics, log, shadow)
    return Shadowed(pipeline, watch, shadow, log, metrics, app)


@pytest.fixture
def two(pipeline: Pipeline) -> Shadowed:
    """Version 1, the champion, adds 1; version 2, the challenger, adds 10."""
    object.__setattr__(pipeline.spec, "answer", answer_known)
    pipeline.champion_of(1.0)
    pipeline.register(10.0)
    found = shadowed(pipeline)
    found.look()
    return found


def test_it_answers_the_same_rows_in_the_log_and_only_there(two: Shadowed) -> None:
    answer = two.predict(1.0, None, 3.0)
    assert (answer["version"], answer["predictions"]) == ("1", [2.0, None, 4.0])
    two.shadow.work()
    columns = ("x", "prediction", "alias", "model_version")
    assert two.logged().select(columns).rows() == [
        (None, None, "challenger", "2"),
        (1.0, 11.0, "challenger", "2"),
        (3.0, 13.0, "challenger", "2"),
        (None, None, "champion", "1"),
        (1.0, 2.0, "champion", "1"),
        (3.0, 4.0, "champion", "1"),
    ]
    assert two.logged()[REQUEST].n_unique() == 1


def test_the_id_of_a_request_comes_with_its_answer(two: Shadowed) -> None:
    found = two.ask(1)
    two.shadow.work()
    assert set(two.logged()[REQUEST]) == {found.headers["x-request-id"]}


def test_metrics_compare_both(two: Shadowed) -> None:
    two.predict(1.0, None, 3.0)
    two.predict(5.0)
    two.shadow.work()
    assert two.value("rows_total", version="2") == 4
    assert two.value("different_rows_total", version="2", answer="prediction") == 3
    assert two.value("absolute_difference_total", version="2", answer="prediction") == 27
    assert two.value("answer_seconds_count", version="2") == 2
    assert two.value("model_version") == 2
    page = two.send("GET", "/metrics").text
    assert 'trainyard_shadow_rows_total{version="2"} 4.0' in page.splitlines()


def test_classes_are_compared_too(two: Shadowed) -> None:
    def shelves(model: Any, given: Any) -> Values:
        return np.where(model.predict(given) > 10.5, "high", "low")

    object.__setattr__(two.pipeline.spec, "answer", shelves)
    assert two.predict(0.1, 1.0, 20.0)["predictions"] == ["low", "low", "high"]
    two.shadow.work()
    assert two.value("different_rows_total", version="2", answer="prediction") == 1
    assert two.value("absolute_difference_total", version="2", answer="prediction") == 0


def test_one_that_fails_touches_no_answer_and_is_told_once(
    two: Shadowed, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(model: Any, given: Any) -> Values:
        if model.intercept_ == 10:
            raise RuntimeError("no such shelf")
        return answer_known(model, given)

    object.__setattr__(two.pipeline.spec, "answer", fails)
    for _ in range(3):
        assert two.predict(1.0, 2.0)["predictions"] == [2.0, 3.0]
        two.shadow.work()
    assert two.value("failed_rows_total", version="2") == 6
    name = two.pipeline.spec.name
    assert caplog.messages == [f"{name} version 2 fails in shadow"]
    assert "no such shelf" in caplog.text
    assert set(two.logged()["alias"]) == {"champion"}


def test_one_that_hangs_holds_no_answer_up_and_what_is_too_much_is_dropped(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hangs(model: Any, given: Any) -> Values:
        if model.intercept_ == 10 and given[0] == 7:
            began.set()
            go_on.wait(30)
        return answer_known(model, given)

    object.__setattr__(pipeline.spec, "answer", hangs)
    monkeypatch.setattr(serving_shadow, "MOST_WAITING", 50)
    pipeline.champion_of(1.0)
    pipeline.register(10.0)
    found = shadowed(pipeline)
    found.look()
    found.shadow.start()
    assert found.predict(7)["predictions"] == [8.0]
    assert began.wait(5)
    start = time.monotonic()
    for x in range(20):
        assert found.predict(x)["predictions"] == [x + 1.0]
    assert time.monotonic() - start < 5
    # one under way and four that wait, each for 10
    assert found.value("dropped_rows_total") == 16
    go_on.set()
    while found.value("rows_total", version="2") < 5:
        assert time.monotonic() - start < 20
        time.sleep(0.01)
    found.shadow.stop()


def test_what_is_not_logged_of_the_champion_is_not_of_the_challenger(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    pipeline.register(10.0)
    found = shadowed(pipeline, share=0)
    found.look()
    found.predict(1.0)
    found.shadow.work()
    assert found.value("rows_total", version="2") == 1
    found.log.write(last=True)
    assert not list(Path(pipeline.store).glob("served/**/*.parquet"))


def test_without_another_version_nothing_is_loaded(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flows.lifecycle")
    pipeline.champion_of(1.0)
    found = shadowed(pipeline)
    found.look()
    assert found.shadowing is None
    # MLflow's page can give one version both
    pipeline.client.set_registered_model_alias(pipeline.spec.name, "challenger", "1")
    found.look()
    assert found.shadowing is None
    assert caplog.messages == [f"{pipeline.spec.name} version 1 answers from now on"]


def test_once_it_is_the_champion_it_ends_and_the_next_one_begins(
    two: Shadowed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flows.lifecycle")
    client, name = two.pipeline.client, two.pipeline.spec.name
    promote(client, name, "2", {})
    two.watch.look()
    # the challenger's watch hasn't seen it yet: the champion's own answers are no comparison
    assert two.predict(1.0)["version"] == "2"
    two.shadow.work()
    assert two.value("rows_total", version="2") == 0
    two.look()
    assert (two.shadowing, two.value("model_version")) == (None, 0)
    two.pipeline.register(5.0)
    two.look()
    assert two.shadowing == "3"
    assert caplog.messages == [
        f"{name} version 2 answers from now on",
        f"{name} version 2 answers no more",
        f"{name} version 3 answers in shadow from now on",
    ]


def test_one_whose_files_were_changed_is_not_asked(
    two: Shadowed, caplog: pytest.LogCaptureFixture
) -> None:
    number = two.pipeline.register(5.0)
    (two.pipeline.files(number) / "model.skops").write_bytes(b"other")
    two.look()
    assert two.shadowing is None
    assert two.value("refused_versions_total") == 1
    assert "@challenger is not asked in shadow: " in caplog.text  # no alarm of the champion's
    two.predict(1.0)
    two.shadow.work()
    assert set(two.logged()["alias"]) == {"champion"}


def test_a_request_that_is_refused_is_not_asked(two: Shadowed) -> None:
    assert two.ask().status_code == 422
    two.predict(1.0)
    two.shadow.work()
    assert two.value("rows_total", version="2") == 1
    assert len(two.logged()) == 2
