"""The serving process: what it says, promotions under load, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from pathlib import Path

import httpx
import polars as pl
import pytest
from mlflow import MlflowClient
from sklearn.dummy import DummyClassifier

from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.registry import promote, register
from flows.lifecycle.serve import PortTakenError, _listening, serve
from flows.lifecycle.spec import SpecError
from flows.wine.spec import PLACE, SPEC
from tests.conftest import ROOT, free_port
from tests.flows.lifecycle.models import Pipeline

pytestmark = pytest.mark.server


@pytest.fixture
def wine(tmp_path: Path) -> Pipeline:
    """A registry of its own, without versions."""
    with chdir(tmp_path):
        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        client.create_experiment("where artifacts go")
    return Pipeline(client, str(tmp_path / "store"), SPEC)


def registered(wine: Pipeline) -> str:
    """Register a model that answers its own version's number."""
    number = len(wine.numbers()) + 1
    model = DummyClassifier(strategy="constant", constant=number).fit([[0] * 13], [number])
    found = register(wine.client, PLACE, *wine.logged(model), wine.lineage(), "a model")
    assert found == str(number)
    return found


def moved(wine: Pipeline) -> str:
    """Register such a model, and make it the champion."""
    found = registered(wine)
    promote(wine.client, SPEC.name, found, {})
    return found


@contextmanager
def serving(wine: Pipeline, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`trainyard model serve` as the tool starts it; gives its process and address."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": wine.client.tracking_uri,
        "TRAINYARD_ARTIFACT_STORE": wine.store,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "flows.lifecycle", "serve", SPEC.name, "--port", "0"]
    with subprocess.Popen(
        [*command, *arguments], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            assert said.startswith(f"{SPEC.name}@champion at http://127.0.0.1:"), said
            yield process, said.split()[2].rstrip(",")
        finally:
            process.kill()


def wait_until_ready(address: str) -> None:
    end = time.monotonic() + 60
    while httpx.get(f"{address}/ready").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_promotions_under_load_fail_no_request_and_mix_no_answer(wine: Pipeline) -> None:
    moved(wine)
    with serving(wine) as (process, address):
        assert process.stdout
        typed = process.stdout.readline()
        wait_until_ready(address)
        shown = subprocess.run(["sh", "-c", typed], capture_output=True, check=True, timeout=30)
        assert json.loads(shown.stdout)["predictions"] == [1]
        body = re.findall("-d '(.*)'", typed)[0]
        rows = {"rows": json.loads(body)["rows"] * 20}
        found, stop = Counter[tuple[int, str, tuple[int, ...]]](), threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=address) as http:
                while not stop.wait(0.02):
                    got = http.post("/predict", json=rows)
                    answer = got.json()
                    kinds = tuple(set(answer.get("predictions", [])))
                    found[got.status_code, answer.get("version", ""), kinds] += 1

        def version() -> str:
            return str(httpx.get(f"{address}/version").json()["version"])

        with ThreadPoolExecutor(3) as clients:
            asked = [clients.submit(ask) for _ in range(3)]
            try:
                for _ in range(2):
                    number = moved(wine)
                    promoted = time.monotonic()
                    while version() != number:
                        assert time.monotonic() < promoted + 5
                        time.sleep(0.05)
                time.sleep(0.3)
            finally:
                stop.set()
            for each in asked:
                each.result()
        # each version answered, whole, and nothing else came
        assert set(found) == {(200, number, (int(number),)) for number in ("1", "2", "3")}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout.read() == "stopped\n"
    # and all of it is in the log, with the one that was typed
    logged = pl.read_parquet(f"{wine.store}/served/{SPEC.name}/*/champion.*.parquet")
    assert len(logged) == 20 * found.total() + 1
    assert (logged["prediction"].cast(str) == logged["model_version"]).all()


def test_what_is_under_way_is_answered_before_it_ends(wine: Pipeline) -> None:
    moved(wine)
    with serving(wine) as (process, address):
        wait_until_ready(address)
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps({"rows": [example()]}).encode()
        with socket.create_connection((host, int(port)), timeout=10) as client:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            client.sendall(head.encode() + body[:10])
            time.sleep(0.3)  # until it is read
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(httpx.ConnectError):  # no new ones are taken
                httpx.get(f"{address}/health")
            client.sendall(body[10:])
            got = b""
            while part := client.recv(4096):
                got += part
        assert got.startswith(b"HTTP/1.1 200")
        assert b'"predictions": [1]' in got
        assert process.wait(10) == -signal.SIGTERM
    (logged,) = Path(wine.store).glob(f"served/{SPEC.name}/day=*/champion.1.*.parquet")
    found = pl.read_parquet(logged)
    assert found.select(*example(), "prediction").rows() == [(*example().values(), 1)]
    assert f"x-request-id: {found['request_id'].item()}".encode() in got


def example() -> dict[str, float]:
    assert SPEC.served
    return {
        field.alias or name: (field.examples or [])[0]
        for name, field in SPEC.served.model_fields.items()
    }


def test_a_port_that_is_taken_and_a_model_without_rows_are_told(
    wine: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(wine)
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(
            PortTakenError, match=rf"port {port} can't be had \(Address already in use\): `--port`"
        ),
    ):
        serve(wine.client, SPEC.name, CHAMPION, port)
    with pytest.raises(ValueError, match="an alias is served, not a version"):
        serve(wine.client, SPEC.name, "1", 0)
    monkeypatch.setitem(SPEC.__dict__, "served", None)
    with pytest.raises(SpecError, match=r"flows\.wine\.spec:SPEC doesn't say what a row has"):
        serve(wine.client, SPEC.name, CHAMPION, 0)


def test_an_answer_leaves_at_once() -> None:
    """Nagle's algorithm holds the second part of an answer back until the first is acknowledged."""

    async def accepted() -> int:
        found: asyncio.Queue[int] = asyncio.Queue()

        async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            await found.put(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = _listening("127.0.0.1", 0)
        async with await asyncio.start_server(take, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            answer = await found.get()
            writer.close()
        return answer

    assert asyncio.run(accepted())


@contextmanager
def starting(uri: str, store: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """As a stack's task starts it; gives its process and address, which may not answer yet."""
    port = free_port()
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri,
        "TRAINYARD_ARTIFACT_STORE": store,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "flows.lifecycle", "serve", SPEC.name, "--port", str(port)]
    with subprocess.Popen(
        [*command, "--hosts", "wine.test"],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answered(address: str, path: str) -> httpx.Response:
    """The first answer, once it listens."""
    end = time.monotonic() + 60
    while True:
        try:
            return httpx.get(f"{address}{path}")
        except httpx.TransportError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_stacks_task_is_healthy_without_a_model_and_serves_it_once_there_is_one(
    wine: Pipeline,
) -> None:
    with starting(wine.client.tracking_uri, wine.store) as (process, address):
        assert answered(address, "/health").status_code == 200
        early = answered(address, "/ready")
        assert early.status_code == 503
        assert f"{SPEC.name} isn't served yet: there is no model" in early.json()["detail"]
        number = moved(wine)
        end = time.monotonic() + 60
        while answered(address, "/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert answered(address, "/version").json()["version"] == number
        assert process.poll() is None


def test_a_stacks_task_is_healthy_where_no_version_is_the_champion(wine: Pipeline) -> None:
    registered(wine)
    with starting(wine.client.tracking_uri, wine.store) as (_, address):
        assert answered(address, "/health").status_code == 200
        assert f"no version of {SPEC.name}@champion" in answered(address, "/ready").text


def test_a_stacks_task_that_starts_beside_a_champion_never_answers_without_it(
    wine: Pipeline,
) -> None:
    moved(wine)
    with starting(wine.client.tracking_uri, wine.store) as (_, address):
        assert answered(address, "/ready").status_code == 200


def doesnt_listen(process: subprocess.Popen[str], address: str, said: str) -> None:
    """It has logged this, goes on, and doesn't answer."""
    assert process.stderr
    assert any(said in line for line in process.stderr)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")
    assert process.poll() is None


def test_a_stacks_task_waits_for_mlflow_and_listens_to_nobody_meanwhile(tmp_path: Path) -> None:
    with starting(f"http://127.0.0.1:{free_port()}", str(tmp_path)) as (process, address):
        doesnt_listen(process, address, "waiting for MLflow: API request to")


def test_a_champion_that_cant_be_loaded_keeps_a_stacks_task_from_listening(
    wine: Pipeline, tmp_path: Path
) -> None:
    moved(wine)
    for file in tmp_path.rglob("*.skops"):
        file.unlink()
    with starting(wine.client.tracking_uri, wine.store) as (process, address):
        doesnt_listen(process, address, f"{SPEC.name}@champion is not taken")
