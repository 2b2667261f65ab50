"""A model behind HTTP: the batch scorer's answers, and one sentence for every bad request."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI

from flows.lifecycle import registry
from flows.lifecycle.batch import Batch
from flows.lifecycle.scoring import NO_ANSWER, score_month
from flows.lifecycle.serving import create_app
from flows.lifecycle.serving_log import RequestLog
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.serving_models import Watch
from flows.lifecycle.serving_rows import JSON, Limits, RowReader
from flows.lifecycle.spec import Values
from flows.platform.artifact_store import artifact_path, read_parquet
from tests.flows.lifecycle.models import Pipeline, answer_known, things

PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.file"
LIMITS = Limits(bytes=2000, rows=100, seconds=5)


@dataclass
class Served:
    """A pipeline's champion behind HTTP; nothing looks at its alias but a test."""

    pipeline: Pipeline
    watch: Watch
    app: FastAPI

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, **given)

        return asyncio.run(answered())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.send("GET", path, headers=headers)

    def ask(self, body: bytes | str, kind: str | None = JSON, **headers: str) -> httpx.Response:
        given = {"content-type": kind} if kind is not None else {}
        return self.send("POST", "/predict", content=body, headers=given | headers)

    def predict(self, *x: float | None) -> dict[str, Any]:
        found = self.ask(json.dumps({"rows": [{"x": each} for each in x]}))
        assert found.status_code == 200, found.text
        return dict(found.json())

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").text.splitlines()
        found = [line.split()[-1] for line in lines if line.startswith(f"trainyard_serving_{name}")]
        return float(found[0]) if found else 0.0


def served(pipeline: Pipeline, limits: Limits = LIMITS, hosts: tuple[str, ...] = ()) -> Served:
    spec = pipeline.spec
    assert spec.served
    reader, metrics = RowReader(spec.served, limits), Metrics()
    watch = Watch(pipeline.client, spec, "champion", reader.example_frame(), metrics)
    log = RequestLog(pipeline.store, spec, [*reader.schema], 1.0, metrics)
    return Served(pipeline, watch, create_app(watch, reader, metrics, log, hosts=hosts))


@pytest.fixture
def of_one(pipeline: Pipeline) -> Served:
    """Version 1, which adds 1, is served."""
    object.__setattr__(pipeline.spec, "answer", answer_known)
    pipeline.champion_of(1.0)
    found = served(pipeline)
    found.watch.look()
    return found


def test_predictions_come_with_the_version_that_made_them(of_one: Served) -> None:
    name = of_one.pipeline.spec.name
    found = of_one.predict(2, 3.5)
    assert found == {
        "model": name,
        "version": "1",
        "predictions": [3.0, 4.5],
        "unanswered": [],
    }


def test_predictions_are_the_batch_scorers_to_the_last_bit(of_one: Served) -> None:
    rows = things(100).select("x")
    spec, pipeline = of_one.pipeline.spec, of_one.pipeline
    of_scoring = score_month(
        pipeline.client,
        spec,
        "2026-05",
        "it",
        "a",
        [Batch(rows, pl.DataFrame())],
        pipeline.store,
        "run",
    )
    scores = read_parquet(artifact_path(of_scoring.scores))["prediction"].to_numpy()
    body = json.dumps({"rows": rows.to_dicts()})
    answered = served(pipeline, Limits())
    answered.watch.look()
    got = answered.ask(body).json()["predictions"]
    assert np.array(got).tobytes() == scores.tobytes()


def test_a_row_without_an_answer_is_null_and_named(of_one: Served) -> None:
    found = of_one.predict(None, 1.0, None)
    assert found["predictions"] == [None, 2.0, None]
    assert found["unanswered"] == [{"row": row, "reason": NO_ANSWER} for row in (0, 2)]
    assert (of_one.metric("rows_total"), of_one.metric("unanswered_rows_total")) == (1, 2)


def test_several_answers_have_their_names(pipeline: Pipeline) -> None:
    def both(model: Any, given: Any) -> Values:
        return np.column_stack([model.predict(given), given[:, 0] > 1])

    pipeline.champion_of(1.0)
    object.__setattr__(pipeline.spec, "answer", both)
    object.__setattr__(pipeline.spec, "answers", ("grams", "heavy"))
    found = served(pipeline)
    found.watch.look()
    assert found.predict(1, 2)["predictions"] == [
        {"grams": 2.0, "heavy": 0.0},
        {"grams": 3.0, "heavy": 1.0},
    ]


@pytest.mark.parametrize(
    ("kind", "write"),
    [(PARQUET, pl.DataFrame.write_parquet), (ARROW, pl.DataFrame.write_ipc)],
)
def test_a_table_is_answered_as_json_is(
    kind: str, write: Callable[[pl.DataFrame, BytesIO], None], of_one: Served
) -> None:
    def asked(rows: pl.DataFrame) -> httpx.Response:
        write(rows, body := BytesIO())
        return of_one.ask(body.getvalue(), kind)

    # as pandas writes it: another order, another column, NaN for what is missing
    rows = pl.DataFrame({"y": ["?", "?"], "x": [1.0, float("nan")]})
    assert asked(rows).json()["predictions"] == [2.0, None]
    assert asked(pl.DataFrame({"x": [1, 2]})).json()["predictions"] == [2.0, 3.0]
    refused = {
        "rows[1].x: Input should be a finite number": pl.DataFrame({"x": [1.0, float("inf")]}),
        "rows[0].x: Input should be less than or equal to 1000": pl.DataFrame({"x": [1001]}),
        "no column x": pl.DataFrame({"z": [1]}),
        "column x holds List(Int64)": pl.DataFrame({"x": [[1]]}),
        "no rows: send at least one": pl.DataFrame({"x": []}, schema={"x": pl.Float64}),
    }
    for detail, bad in refused.items():
        found = asked(bad)
        assert (found.status_code, found.json()) == (422, {"detail": detail})
    many = asked(pl.DataFrame({"x": pl.Series([0.0]).extend_constant(0.0, 100)}))
    assert (many.status_code, many.json()["detail"]) == (
        413,
        "101 rows: a request has 100 rows and 2,000 bytes at most",
    )
    for broken in (b"", b"PAR1 and no more", b"ARROW1\0\0" + b"\xff" * 100):
        found = of_one.ask(broken, kind)
        assert found.status_code == 400
        assert (
            f"the body is no whole {kind.rpartition('.apache.')[2]} file" in found.json()["detail"]
        )


BAD = [
    ("", 400, "the body is no JSON in UTF-8: EOF"),
    ("{", 400, "the body is no JSON in UTF-8: EOF"),
    ("[" * 1900, 400, "recursion limit"),
    ('{"rows": [{"x": 1}]}'.encode("utf-16"), 400, "the body is no JSON in UTF-8"),
    (b'{"rows": [{"x": "\xff"}]}', 400, "the body is no JSON in UTF-8"),
    ("3", 422, 'send {"rows": [{...}, ...]}'),
    ("{}", 422, 'send {"rows": [{...}, ...]}: Field required'),
    ('{"rows": 3}', 422, 'send {"rows": [{...}, ...]}'),
    ('{"rows": []}', 422, "no rows: send at least one"),
    ('{"rows": [3]}', 422, "rows[0]: Input should be an object"),
    ('{"rows": [{"x": 1}, {}]}', 422, "rows[1].x: Field required"),
    ('{"rows": [{"x": "1"}]}', 422, "rows[0].x: Input should be a valid number"),
    ('{"rows": [{"x": true}]}', 422, "rows[0].x: Input should be a valid number"),
    ('{"rows": [{"x": NaN}]}', 422, "rows[0].x: Input should be a finite number"),
    ('{"rows": [{"x": -Infinity}]}', 422, "rows[0].x: Input should be a finite number"),
    ('{"rows": [{"x": 1e999}]}', 422, "rows[0].x: Input should be a finite number"),
    (f'{{"rows": [{{"x": -1{"0" * 400}}}]}}', 422, "rows[0].x: Input should be a finite number"),
    ('{"rows": [{"x": 1001}]}', 422, "rows[0].x: Input should be less than or equal to 1000"),
    (json.dumps({"rows": [{"x": 1}] * 101}), 413, "101 rows: a request has 100 rows"),
    (json.dumps({"rows": [{"x": 1}] * 1_000_000}), 413, "a request has 2,000 bytes at most"),
]


@pytest.mark.parametrize(("body", "status", "told"), BAD, ids=[told for _, _, told in BAD])
def test_a_bad_body_is_told_in_a_sentence(
    body: str | bytes, status: int, told: str, of_one: Served
) -> None:
    found = of_one.ask(body)
    assert found.status_code == status, found.text
    assert found.json().keys() == {"detail"}
    assert told in found.json()["detail"]
    assert "\n" not in found.json()["detail"]
    assert of_one.metric("errors_total") == 1
    assert of_one.predict(1)["predictions"] == [2.0]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (None, "content type missing: send `Content-Type: application/json`"),
        ("", "content type missing"),
        ("text/plain", "content type text/plain"),
        ("application/x-www-form-urlencoded", "content type application/x-www-form-urlencoded"),
        ("application/json; charset=utf-16", "JSON in utf-16: send it in UTF-8"),
    ],
)
def test_another_content_type_is_refused(kind: str | None, told: str, of_one: Served) -> None:
    found = of_one.ask('{"rows": [{"x": 1}]}', kind)
    assert (found.status_code, found.json().keys()) == (415, {"detail"})
    assert told in found.json()["detail"]
    assert of_one.ask('{"rows": [{"x": 1}]}', 'application/JSON; charset="UTF-8"').is_success


def test_a_body_without_a_length_is_cut_off_too(of_one: Served) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b'{"rows": ['

    found = of_one.send("POST", "/predict", content=parts(), headers={"content-type": JSON})
    assert found.status_code == 413


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"host": "localhost:8000"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"origin": "http://localhost:8000"}, True),
        ({"host": "evil.example:8000"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": ""}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://[127.0.0.1"}, False),
    ],
    ids=str,
)
def test_only_this_machines_own_names_and_pages_are_answered(
    headers: dict[str, str], passes: bool, of_one: Served
) -> None:
    for path in ("/health", "/docs", "/metrics", "/nowhere"):
        found = of_one.get(path, **headers)
        assert (found.status_code != 403) is passes
        assert passes or found.json().keys() == {"detail"}
        assert "access-control-allow-origin" not in found.headers
    assert of_one.ask('{"rows": [{"x": 1}]}', **headers).is_success is passes


def test_a_stacks_server_answers_by_its_own_names_and_its_health_to_whoever_asks(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(1.0)
    found = served(pipeline, hosts=("tested.dev.trainyard.internal",))
    found.watch.look()
    own = {"host": "tested.dev.trainyard.internal:8000"}
    assert found.get("/ready", **own).status_code == 200
    assert found.get("/ready").status_code == 200  # by 127.0.0.1
    for path, status in (("/ready", 403), ("/docs", 403), ("/health", 200), ("/metrics", 200)):
        assert found.get(path, host="10.20.0.7:8000").status_code == status
    page = {**own, "origin": "http://evil.example"}
    assert found.get("/ready", **page).status_code == 403


def test_until_a_version_is_loaded_it_is_not_ready(pipeline: Pipeline) -> None:
    pipeline.register(1.0)
    early = served(pipeline)
    early.watch.look()
    assert early.get("/health").json() == {"status": "ok"}
    for found in (
        early.get("/ready"),
        early.get("/version"),
        early.ask('{"rows": [{"x": 1}]}'),
    ):
        assert found.status_code == 503
        assert "@champion is loaded yet" in found.json()["detail"]
    pipeline.decide("1")
    early.watch.look()
    assert early.get("/ready").json() == {"status": "ready", "version": "1"}
    assert early.predict(1)["predictions"] == [2.0]


def test_version_says_what_it_was_made_from(of_one: Served) -> None:
    found = of_one.get("/version").json()
    assert found.pop("since").startswith("20")
    assert found == {
        "model": of_one.pipeline.spec.name,
        "alias": "champion",
        "version": "1",
        "flow_run": "run",
        "flow_run_url": "http://prefect/run",
        "commit": "c0ffee",
        "image": "",
    }


def test_the_page_has_an_example_that_works_when_pasted(of_one: Served) -> None:
    assert "swagger" in of_one.get("/docs").text
    document = of_one.get("/openapi.json").json()
    of_json = document["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]
    assert of_one.ask(json.dumps(of_json["example"])).json()["predictions"] == [2.5]
    row = of_json["schema"]["properties"]["rows"]["items"]
    assert row["required"] == ["x"]
    assert "#/components/schemas/Thing" not in json.dumps(document)


def test_addresses_that_there_are_not_have_errors_of_the_same_form(of_one: Served) -> None:
    assert of_one.get("/nowhere").json() == {"detail": "Not Found"}
    assert of_one.get("/predict").json() == {"detail": "Method Not Allowed"}


def test_what_the_model_fails_on_is_told_without_its_traceback(
    of_one: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> Values:
        raise RuntimeError("secret")

    object.__setattr__(of_one.pipeline.spec, "answer", fails)
    found = of_one.ask('{"rows": [{"x": 1}]}')
    assert found.status_code == 500
    assert "the server's log says why" in found.json()["detail"]
    assert "secret" not in found.text
    assert "secret" in caplog.text


def test_a_request_is_answered_by_the_version_that_it_began_with(of_one: Served) -> None:
    pipeline, began, go_on = of_one.pipeline, threading.Event(), threading.Event()

    def waits(model: Any, given: Any) -> Values:
        if given[0] == 7:
            began.set()
            assert go_on.wait(5)
        return answer_known(model, given)

    object.__setattr__(pipeline.spec, "answer", waits)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(of_one.predict, 7, 8)
        assert began.wait(5)
        registry.promote(pipeline.client, pipeline.spec.name, pipeline.register(100.0), {})
        of_one.watch.look()
        assert of_one.predict(1)["version"] == "2"
        go_on.set()
        assert (first.result()["version"], first.result()["predictions"]) == ("1", [8.0, 9.0])


def answering_slowly(pipeline: Pipeline, limits: Limits) -> tuple[Served, list[threading.Event]]:
    """A champion that is served, and whose answer for 7 sets one event and waits for another."""
    events = [threading.Event(), threading.Event()]

    def waits(model: Any, given: Any) -> Values:
        if given[0] == 7:
            events[0].set()
            assert events[1].wait(10)
        return answer_known(model, given)

    object.__setattr__(pipeline.spec, "answer", waits)
    pipeline.champion_of(1.0)
    found = served(pipeline, limits)
    found.watch.look()
    return found, events


def test_too_many_requests_at_once_are_told_to_come_again(pipeline: Pipeline) -> None:
    slow, (began, go_on) = answering_slowly(pipeline, Limits(at_once=1))
    with ThreadPoolExecutor(1) as other:
        first = other.submit(slow.predict, 7)
        assert began.wait(5)
        busy = slow.ask('{"rows": [{"x": 1}]}')
        go_on.set()
        assert first.result()["predictions"] == [8.0]
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert busy.json()["detail"] == "1 requests are under way: try again"
    assert slow.predict(1)["predictions"] == [2.0]


def test_bodies_that_together_are_too_large_are_told_to_come_again(pipeline: Pipeline) -> None:
    slow, (began, go_on) = answering_slowly(pipeline, Limits(bytes_at_once=30))
    with ThreadPoolExecutor(1) as other:
        first = other.submit(slow.ask, '{"rows": [{"x": 7}]}')
        assert began.wait(5)
        busy = slow.ask('{"rows": [{"x": 1}]}')
        go_on.set()
        assert first.result().json()["predictions"] == [8.0]
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert busy.json()["detail"] == "requests of 20 bytes are under way: try again"
    for _ in range(3):  # what was refused or answered takes no room
        assert slow.predict(1)["predictions"] == [2.0]


def test_an_answer_that_takes_too_long_is_given_up(pipeline: Pipeline) -> None:
    slow, (_, go_on) = answering_slowly(pipeline, Limits(seconds=0.2))
    found = slow.ask('{"rows": [{"x": 7}]}')
    go_on.set()
    assert found.status_code == 503
    assert found.json()["detail"] == "no answer within 0.2 s: send fewer rows"


def test_a_body_that_comes_too_slowly_is_given_up(pipeline: Pipeline) -> None:
    slow, _ = answering_slowly(pipeline, Limits(seconds=0.2))

    async def parts() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(10)

    found = slow.send("POST", "/predict", content=parts(), headers={"content-type": JSON})
    assert (found.status_code, found.json()) == (
        408,
        {"detail": "the body didn't arrive within 0.2 s"},
    )


def test_metrics_say_what_was_asked(of_one: Served) -> None:
    of_one.predict(1, 2, 3)
    of_one.ask("{")
    page = of_one.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for line in (
        "trainyard_serving_request_seconds_count 2.0",
        "trainyard_serving_rows_total 3.0",
        'trainyard_serving_errors_total{kind="unreadable"} 1.0',
        "trainyard_serving_model_version 1.0",
    ):
        assert line in page.text.splitlines()
    assert 0 <= of_one.metric("alias_lag_seconds") < 60
