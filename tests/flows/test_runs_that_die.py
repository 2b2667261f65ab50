"""Runs that are killed, on a real server, with a worker: what becomes of them, and who is told."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed, Pending

import infra.register
from infra.automations import automations
from infra.outputs import ProcessWorkPool, StackOutputs
from infra.register import register

PIPELINE = """
import os
import signal
import time
from pathlib import Path

from prefect import flow, task

@task(persist_result=True)
def load(folder: str) -> int:
    with Path(folder, "log").open("a") as log:
        log.write("load\\n")
    return 7

@task(persist_result=True)
def fit(loaded: int, folder: str) -> int:
    with Path(folder, "log").open("a") as log:
        log.write(f"fit {loaded}\\n")
    if not Path(folder, "pid").exists():
        Path(folder, "pid").write_text(str(os.getpid()))
        time.sleep(600)
    return loaded

@flow
def train(folder: str) -> int:
    return fit(load(folder), folder)

@flow
def rest(folder: str) -> None: ...

@flow
def die(folder: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
"""

AGAIN = "It is scheduled again, and goes on after the tasks that it has finished."


def within(seconds: float, what: str, look: Callable[[], Any]) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Pool:
    """A work pool with everything that `register` makes, and a worker."""

    def __init__(self, client: SyncPrefectClient, api_url: str, folder: Path) -> None:
        self.client, self.folder, self.told = client, folder, list[str]()
        self.outputs = StackOutputs(
            stack="laptop",
            prefect_api_url=api_url,
            tracking_uri="http://127.0.0.1:9",
            artifact_store=str(folder / "artifacts"),
            code_dir=str(folder),
            work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
        )
        (folder / "pipeline.py").write_text(PIPELINE)
        self._worker: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.outputs.work_pool.name

    def start_worker(self) -> None:
        command = ["-m", "prefect", "worker", "start", "--type", "process", "--pool", self.name]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": self.outputs.prefect_api_url,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, *command], env=environment, cwd=self.folder, stdout=log, stderr=log
            )

    def kill_worker(self) -> None:
        if self._worker:
            self._worker.kill()
            self._worker.wait()

    def run(self, flow: str, pool: str | None = None, **options: Any) -> FlowRun:
        deployment = self.client.create_deployment(
            self.client.create_flow(Flow(lambda: None, name=flow)),
            name=f"{flow}-{uuid.uuid4().hex[:8]}",
            entrypoint=f"pipeline.py:{flow}",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": str(self.folder)}}
            ],
            work_pool_name=pool or self.name,
            parameters={"folder": str(self.folder)},
            tags=[self.name],
        )
        return self.client.create_flow_run_from_deployment(deployment, **options)

    def states(self, run: FlowRun) -> list[State[Any]]:
        return sorted(self.client.read_flow_run_states(run.id), key=lambda state: state.timestamp)

    def names(self, run: FlowRun) -> list[str]:
        return [state.name or "" for state in self.states(run)]

    def told_of(self, run: FlowRun) -> list[str]:
        return [text for text in self.told if run.name in text]


@dataclass
class Died:
    """Runs that met their ends, all at once: each takes a while to be noticed."""

    pool: Pool
    silent: FlowRun
    killed: float
    always: FlowRun
    unstarted: FlowRun
    stuck: FlowRun
    gone: FlowRun
    of_others: FlowRun


@pytest.fixture(scope="module")
def died(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Died]:
    with get_client(sync_client=True) as client, pytest.MonkeyPatch.context() as patch:
        pool = Pool(client, prefect_server, tmp_path_factory.mktemp("runs that die"))

        class Webhook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                pool.told.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        others = ProcessWorkPool(name=f"others-{uuid.uuid4().hex[:8]}")
        patch.setattr(infra.register, "automations", lambda *_: [])
        register(pool.outputs.model_copy(update={"work_pool": others}))
        patch.setenv("TRAINYARD_NOTIFY_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        # shorter than in the field; 30 s is as often as a heart can beat
        soon = functools.partial(automations, silence=40, wait_for_machine=30, settle=10)
        patch.setattr(infra.register, "automations", soon)
        register(pool.outputs)
        pool.start_worker()
        try:
            silent = pool.run("train")
            pid = int(within(60, "the run fits", lambda: _text(pool.folder / "pid")))
            pool.kill_worker()  # nobody is left to say what happened
            os.kill(pid, signal.SIGKILL)
            killed = time.time()
            pool.start_worker()
            gone = pool.run("rest", state=Pending())
            said = "The following containers stopped with a non-zero exit code: ['prefect']"
            client.set_flow_run_state(gone.id, Crashed(message=said))  # as Prefect's observer does
            yield Died(
                pool,
                silent,
                killed,
                always=pool.run("die"),
                unstarted=pool.run("rest", job_variables={"command": "false"}),
                stuck=pool.run("rest", state=Pending()),
                gone=gone,
                of_others=pool.run("rest", others.name, state=Pending()),
            )
        finally:
            pool.kill_worker()
            server.shutdown()
            patch.setattr(infra.register, "automations", lambda *_: [])
            register(pool.outputs)  # other tests' runs on this server are left alone
            kind, name = reversed(infra.register.NOTIFICATIONS.split("/"))
            client.delete_block_document(client.read_block_document_by_name(kind, name).id)


def test_a_run_that_dies_every_time_is_given_up_after_three_starts(died: Died) -> None:
    pool, run = died.pool, died.always
    within(150, "it is given up", lambda: "given up" in "".join(pool.told_of(run)))
    assert pool.client.read_flow_run(run.id).run_count == 3
    *again, last = [text.split(". ")[-1] for text in pool.told_of(run)]
    assert set(again) == {AGAIN}
    assert last == "It is given up: look at its log, then retry it in Prefect."


def test_a_run_that_never_starts_is_tried_twice(died: Died) -> None:
    pool, run = died.pool, died.unstarted
    within(90, "it is given up", lambda: "given up" in "".join(pool.told_of(run)))
    assert AGAIN in pool.told_of(run)[0]
    assert pool.client.read_flow_run(run.id).run_count == 0


def test_a_run_that_finds_no_machine_is_crashed_and_starts_again(died: Died) -> None:
    pool, run = died.pool, died.stuck
    within(120, "it is Completed", lambda: pool.names(run)[-1] == "Completed")
    crash, *_ = [state for state in pool.states(run) if state.name == "Crashed"]
    assert crash.message == "Not started after 30 s: see the worker's log."


def test_a_run_whose_task_has_gone_starts_again_at_once(died: Died) -> None:
    pool, run = died.pool, died.gone
    within(60, "it is Completed", lambda: pool.names(run)[-1] == "Completed")
    assert pool.names(run)[:3] == ["Pending", "Crashed", "AwaitingRetry"]


def test_a_run_that_is_killed_in_silence_goes_on_where_it_was(died: Died) -> None:
    pool, run = died.pool, died.silent
    within(120, "it is Completed", lambda: pool.names(run)[-1] == "Completed")
    crash, *_ = [state for state in pool.states(run) if state.name == "Crashed"]
    assert crash.message == "No heartbeat for 40 s: its process or machine is gone."
    assert crash.timestamp.timestamp() - died.killed < 120
    # what had finished wasn't done again
    assert _text(pool.folder / "log").splitlines().count("load") == 1
    assert run.deployment_id
    deployment = pool.client.read_deployment(run.deployment_id)
    # a set: Prefect tells things at least once
    assert set(pool.told_of(run)) == {
        f"train/{deployment.name}: run {run.name} is Crashed: No heartbeat for 40 s: its process or"
        f" machine is gone. {AGAIN}"
    }


def test_what_is_given_up_stays_crashed_and_runs_of_others_are_left_alone(died: Died) -> None:
    time.sleep(12)  # longer than it takes to start a run again
    assert died.pool.names(died.always)[-1] == "Crashed"
    assert died.pool.names(died.unstarted)[-1] == "Crashed"
    assert died.pool.names(died.of_others) == ["Pending"]


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
