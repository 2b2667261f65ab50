"""`make bench SERVE=1`: serving the taxi model, beside `mlflow models serve`.

Both have one worker and one thread a prediction, and answer the same rows on the same machine, in
turn; the client is on it too. A latency counts from the moment that a request was due, so a server
that stalls can't hide it. Afterwards ten promotions are made under the load of one row a request.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import polars as pl
import psutil
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table
from upath import UPath

from bench.flow_process import environment_of, in_own_process
from bench.page import show
from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.registry import CHALLENGER, aliases, promote, versions
from flows.taxi.features import TRIP_COLUMNS, model_input
from flows.taxi.source import raw_month
from flows.taxi.spec import SPEC

PROMOTIONS = 10
ROUNDS = 2
CONNECTIONS = 4
TAKEN = 5.0
"""Seconds within which another version is taken."""


@dataclass(frozen=True)
class Load:
    """Rows a request, and requests a second."""

    rows: int
    rate: int


@dataclass(frozen=True)
class Served:
    """What a server did: latencies in milliseconds, in the order of requests."""

    latencies: list[float]
    failed: int
    cpu: float
    """Milliseconds of processor time a request."""
    memory: float
    """Megabytes, of all its processes, after the load."""

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))]


@dataclass(frozen=True)
class Server:
    """A server that runs: where it listens, and how rows are written for it."""

    process: psutil.Process
    port: int
    path: str
    body: Callable[[pl.DataFrame], bytes]

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        times = [each.cpu_times() for each in self.family()]
        return sum(each.user + each.system for each in times)


LOADS = (Load(1, 100), Load(1000, 10))


def run(server: Server, rows: pl.DataFrame, load: Load, seconds: float) -> Served:
    """Send a load for some seconds, on time whatever the answers take."""
    body = server.body(rows.head(load.rows))
    count, before = int(load.rate * seconds), server.cpu_seconds()
    start = time.perf_counter() + 0.1

    def send(first: int) -> list[float | None]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        took: list[float | None] = []
        for number in range(first, count, CONNECTIONS):
            due = start + number / load.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                connection.request("POST", server.path, body, headers)
                answer = connection.getresponse()
                answer.read()
                failed = answer.status != 200
            except (OSError, HTTPException):
                connection.close()
                failed = True
            took.append(None if failed else (time.perf_counter() - due) * 1000)
        connection.close()
        return took

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = [each for part in pool.map(send, range(CONNECTIONS)) for each in part]
    latencies = [each for each in found if each is not None]
    return Served(
        latencies,
        len(found) - len(latencies),
        (server.cpu_seconds() - before) / count * 1000,
        sum(each.memory_info().rss for each in server.family()) / 1e6,
    )


@contextmanager
def serving(
    command: Sequence[str], path: str, body: Callable[[pl.DataFrame], bytes], folder: Path
) -> Iterator[Server]:
    """Start a server, and end it with all its processes; `{port}` in its command is a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / f"{port}.log"
    # MLflow's command starts the uvicorn that is on the path
    path_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"OMP_NUM_THREADS": "1", "PATH": path_first}
    with log.open("w") as written:
        process = psutil.Popen(
            [each.format(port=port) for each in command],
            env={**os.environ, **environment_of(folder), **own},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, port, path, body)
    try:
        _wait(server, log)
        yield server
    finally:
        for each in reversed(server.family()):
            each.terminate()
        psutil.wait_procs(server.family(), timeout=15)


def _wait(server: Server, log: Path) -> None:
    """Until it has a model: MLflow's has one once it answers at all."""
    path = "/ready" if server.path == "/predict" else "/ping"
    for _ in range(120):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if not server.process.is_running():
            break
        time.sleep(0.5)
    raise RuntimeError(f"a server didn't start:\n{log.read_text()}")


def ours(rows: pl.DataFrame) -> bytes:
    """The rows as `/predict` takes them."""
    known = rows.with_columns(pl.col("lpep_pickup_datetime").dt.to_string("iso:strict"))
    return json.dumps({"rows": known.to_dicts()}).encode()


def mlflows(rows: pl.DataFrame) -> bytes:
    """The rows as `/invocations` takes them."""
    table = model_input(rows).to_json(orient="split", index=False, date_format="iso")
    return f'{{"dataframe_split": {table}}}'.encode()


def promotions(server: Server, client: MlflowClient, rows: pl.DataFrame) -> tuple[Served, int]:
    """Promote one version and the other in turn under load; gives the load, and how many came."""
    numbers = [str(each.version) for each in versions(client, SPEC.name)]
    seen = set[int]()

    def move() -> None:
        for turn in range(PROMOTIONS):
            promote(client, SPEC.name, numbers[turn % len(numbers)], {})
            time.sleep(TAKEN)
            connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", "/version")
            now = json.loads(connection.getresponse().read())["version"]
            if now == numbers[turn % len(numbers)]:
                seen.add(turn)

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move)
        found = run(server, rows, LOADS[0], PROMOTIONS * TAKEN + 1)
        moving.result()
    return found, len(seen)


def main(data: str, months: tuple[str, str], console: Console, seconds: float = 10) -> None:
    """Measure both servers and print the table."""
    with tempfile.TemporaryDirectory() as temporary, console.status("reading") as status:
        folder = Path(temporary)
        month = raw_month(data, months[1], UPath(folder)).path
        raw = pl.read_parquet(month, columns=[*TRIP_COLUMNS])
        rows = raw.drop_nulls().head(max(load.rows for load in LOADS))
        for seed in (1, 2):
            status.update(f"training the model of a {'second ' * (seed - 1)}version")
            in_own_process(data, months, folder, num_trials=2, seed=seed)
        client = MlflowClient(environment_of(folder)["MLFLOW_TRACKING_URI"])
        client.delete_registered_model_alias(SPEC.name, CHALLENGER)  # MLflow's server has none
        python = [sys.executable, "-m"]
        own = [*python, "flows.lifecycle", "serve", SPEC.name, "--port", "{port}"]
        peer = [*python, "mlflow", "models", "serve", "-m", f"models:/{SPEC.name}@champion"]
        peer += ["--env-manager", "local", "--workers", "1", "--port", "{port}"]
        found: dict[tuple[str, Load], list[Served]] = {}
        with (
            serving(own, "/predict", ours, folder) as trainyard,
            serving(peer, "/invocations", mlflows, folder) as mlflow,
        ):
            servers = {"trainyard": trainyard, "mlflow": mlflow}
            for turn in range(1 + ROUNDS):
                for load in LOADS:
                    for name, server in servers.items():
                        status.update(f"{name}: {load.rows} rows, {load.rate} a second")
                        one = run(server, rows, load, seconds if turn else 2)
                        if turn:  # the first is to warm up
                            found.setdefault((name, load), []).append(one)
            memory = {name: found[name, LOADS[0]][-1].memory for name in servers}
            status.update("with a challenger")
            champion = aliases(client, SPEC.name)[CHAMPION]
            numbers = {str(each.version) for each in versions(client, SPEC.name)}
            (challenger,) = numbers - {champion}
            client.set_registered_model_alias(SPEC.name, CHALLENGER, challenger)
            time.sleep(TAKEN)
            shadowed = run(trainyard, rows, LOADS[0], seconds)
            status.update(f"{PROMOTIONS} promotions under load")
            moved, taken = promotions(trainyard, client, rows)
    show(
        console,
        "serving",
        table(found, memory),
        f"with a challenger in shadow, {LOADS[0].rate} requests a second: p95 "
        f"{shadowed.percentile(0.95):.1f} ms, {shadowed.cpu:.1f} ms of processor a request, "
        f"{shadowed.memory:.0f} MB",
        f"{PROMOTIONS} promotions at {LOADS[0].rate} requests a second: {taken} taken, "
        f"{moved.failed} of {len(moved.latencies) + moved.failed} requests failed, "
        f"p95 {moved.percentile(0.95):.1f} ms",
        f"{Path(data).name}: {months[0]} validated on {months[1]}",
    )


def table(found: dict[tuple[str, Load], list[Served]], memory: dict[str, float]) -> Table:
    """What was measured, beside what the project wants."""
    result = Table(
        title="One row and many, at a steady rate: `trainyard serve` and `mlflow models serve`",
        caption=f"medians of {ROUNDS} rounds; ratio = mlflow / trainyard: above 1, ours is faster",
    )
    for heading in ("", "mlflow", "trainyard", "ratio", "wanted"):
        result.add_column(heading, justify="right" if heading else "left")

    def row(what: str, unit: str, theirs: float, own: float, wanted: str = "") -> None:
        ratio = f"{theirs / own:.2f}" if own else ""
        result.add_row(what, f"{theirs:.1f} {unit}", f"{own:.1f} {unit}", ratio, wanted)

    figures: list[tuple[str, str, Callable[[Served], float]]] = [
        ("p50", "ms", lambda each: each.percentile(0.5)),
        ("p95", "ms", lambda each: each.percentile(0.95)),
        ("processor, a request", "ms", lambda each: each.cpu),
        ("failed", "", lambda each: each.failed),
    ]
    wanted = {
        (1, "p95"): "< 10 ms",
        (1, "processor, a request"): "> 1.67",
        (1000, "p95"): "< 30 ms",
    }
    for load in LOADS:
        for what, unit, of in figures:
            theirs, own = (
                statistics.median(of(each) for each in found[name, load])
                for name in ("mlflow", "trainyard")
            )
            title = f"{load.rows:,} row{'s' * (load.rows > 1)}, {load.rate}/s: {what}"
            row(title, unit, theirs, own, wanted.get((load.rows, what), ""))
        result.add_section()
    row("memory", "MB", memory["mlflow"], memory["trainyard"], "< 400 MB")
    return result
