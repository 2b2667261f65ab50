"""Runs that die, fail or are late, and a new champion, on a real server with a worker: what becomes
of them, and what a webhook on this machine is told.

The other deaths are drills of the rehearsal (trainyard/rehearsal/drills.py).
"""

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
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.settings import PREFECT_HOME
from prefect.states import Crashed, Late, Pending, Running

import trainyard.prefect.register
from infra.components.observability import DRIFT
from tests.conftest import ROOT
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs
from trainyard.contract.run_states import LOG_CRASHED, LOG_FAILED
from trainyard.prefect.automations import automations
from trainyard.prefect.register import register

pytestmark = pytest.mark.server

PIPELINE = (
    f"""
import os
import sys
import time
from pathlib import Path

from prefect import flow, get_run_logger, task

sys.path.append({str(ROOT)!r})
from flows.platform.events import (
    DRIFT_LINE, drift_detected, model_promoted, model_taken_back, older_data_used
)
"""
    + """
@task
def stage() -> None:
    model_promoted("rides", "7", "RMSE 4.6 min")
    model_taken_back("rides", "7", "6", "too slow")
    get_run_logger().warning(DRIFT_LINE, "rides", "trips are longer")
    for _ in range(2):
        drift_detected("rides", "2023-02", "6", "trips are longer", "synthetic")
    older_data_used("rides", "the snapshot of May", "the API is down")

@flow
def promote(folder: str) -> None:
    stage()

@flow
def fail(folder: str) -> None:
    raise RuntimeError("no data")

@flow(timeout_seconds=1)
def dawdle(folder: str) -> None:
    time.sleep(10)

@flow
def interrupt(folder: str) -> None:
    raise KeyboardInterrupt

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
"""
)

# As prefect_aws reports it.
TASK_GONE = "The following containers stopped with a non-zero exit code: ['prefect']"
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

    def deployment(self, run: FlowRun) -> str:
        assert run.deployment_id
        flow = self.client.read_flow(run.flow_id)
        return f"{flow.name}/{self.client.read_deployment(run.deployment_id).name}"

    def states(self, run: FlowRun) -> list[State[Any]]:
        return sorted(self.client.read_flow_run_states(run.id), key=lambda state: state.timestamp)

    def names(self, run: FlowRun) -> list[str]:
        return [state.name or "" for state in self.states(run)]

    def has_heard(self, run: FlowRun) -> bool:
        beats = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        }
        return bool(
            self.client.request("POST", "/events/count-by/event", json={"filter": beats}).json()
        )

    def beat(self, run: FlowRun) -> None:
        """What a run's engine says twice a minute."""
        emit_event(
            "prefect.flow-run.heartbeat",
            resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"},
            related=[
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{self.name}"}
            ],
        )

    def told_of(self, run: FlowRun) -> list[str]:
        return [text for text in self.told if run.name in text]


@dataclass
class Died:
    """Runs that met their ends, all at once: each takes a while to be noticed."""

    pool: Pool
    silent: FlowRun
    killed: float
    of_others: FlowRun
    failed: FlowRun
    too_slow: FlowRun
    misfit: FlowRun
    interrupted: FlowRun
    late: FlowRun
    gone: FlowRun
    never_beat: FlowRun


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
        patch.setattr(trainyard.prefect.register, "automations", lambda *_: [])
        register(pool.outputs.model_copy(update={"work_pool": others}))
        patch.setenv("TRAINYARD_NOTIFY_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        # shorter than in the field; 30 s is as often as a heart can beat
        soon = functools.partial(automations, silence=40, wait_for_machine=60, settle=10, late=10)
        patch.setattr(trainyard.prefect.register, "automations", soon)
        register(pool.outputs)
        pool.start_worker()
        try:
            silent = pool.run("train")
            pid = int(within(180, "the run fits", lambda: _text(pool.folder / "pid")))
            within(120, "its heart is heard", lambda: pool.has_heard(silent))
            pool.kill_worker()  # nobody is left to say what happened
            os.kill(pid, signal.SIGKILL)
            killed = time.time()
            pool.start_worker()
            pool.run("promote")
            client.create_work_queue("asleep", work_pool_name=pool.name, is_paused=True)
            late = pool.run("rest", work_queue_name="asleep")
            # what a server's own service does after 15 s; servers of tests don't run it
            client.set_flow_run_state(late.id, Late())
            gone = pool.run("rest", work_queue_name="asleep")
            client.set_flow_run_state(gone.id, Crashed(message=TASK_GONE))
            never_beat = pool.run("rest", work_queue_name="asleep")
            client.set_flow_run_state(never_beat.id, Running())
            yield Died(
                pool,
                silent=silent,
                killed=killed,
                of_others=pool.run("rest", others.name, state=Pending()),
                failed=pool.run("fail"),
                too_slow=pool.run("dawdle"),
                misfit=pool.run("rest", parameters={"folder": ["a list"]}),
                interrupted=pool.run("interrupt"),
                late=late,
                gone=gone,
                never_beat=never_beat,
            )
        finally:
            pool.kill_worker()
            server.shutdown()
            patch.setattr(trainyard.prefect.register, "automations", lambda *_: [])
            register(pool.outputs)  # other tests' runs on this server are left alone
            kind, name = trainyard.prefect.register.NOTIFICATIONS.split("/")
            client.delete_block_document(client.read_block_document_by_name(name, kind).id)


def test_a_run_that_is_killed_in_silence_goes_on_where_it_was(died: Died) -> None:
    pool, run = died.pool, died.silent
    # a silence is looked for every 40 s, so 80 s may pass before it is seen
    within(240, "it is Completed", lambda: pool.names(run)[-1] == "Completed")
    crash, *_ = [state for state in pool.states(run) if state.name == "Crashed"]
    assert crash.message == "No heartbeat for 40 s: its process or machine is gone."
    assert crash.timestamp.timestamp() - died.killed < 120
    # what had finished wasn't done again
    assert _text(pool.folder / "log").splitlines().count("load") == 1
    # a set: Prefect tells things at least once
    assert set(pool.told_of(run)) == {
        f"{pool.deployment(run)}: run {run.name} is Crashed: No heartbeat for 40 s: its process or"
        f" machine is gone. {AGAIN}"
    }


def test_runs_of_others_are_left_alone(died: Died) -> None:
    waits_since = died.of_others.created
    assert waits_since
    # longer than a run of ours may
    within(120, "it has waited", lambda: datetime.now(UTC) - waits_since > timedelta(seconds=75))
    assert died.pool.names(died.of_others) == ["Pending"]


def test_a_run_that_only_seemed_dead_goes_on_and_is_not_started_again(died: Died) -> None:
    pool = died.pool
    run = pool.run("rest", work_queue_name="asleep")

    def goes_on() -> bool:
        pool.beat(run)
        return "Running" in pool.names(run)

    # as after Prefect's server was away for longer than a heart may be silent
    pool.client.set_flow_run_state(run.id, Crashed(name="Recovering"), force=True)
    within(60, "it is Running", goes_on)
    states = [state for state in pool.states(run) if state.name in ("Running", "AwaitingRetry")]
    assert [state.message for state in states] == ["Its heart beats again."]


def test_a_run_that_dies_before_its_heart_has_beaten_is_crashed(died: Died) -> None:
    pool, run = died.pool, died.never_beat
    within(120, "it is Crashed", lambda: "Crashed" in pool.names(run))
    crash = next(state for state in pool.states(run) if state.name == "Crashed")
    assert crash.message == "No heartbeat for 40 s: its process or machine is gone."


def test_a_run_whose_task_has_gone_starts_again_at_once_and_is_given_up_the_second_time(
    died: Died,
) -> None:
    pool, run = died.pool, died.gone
    within(120, "it is scheduled", lambda: pool.names(run)[-1] == "AwaitingRetry")
    assert "Recovering" not in pool.names(run)  # nothing will report this death again
    # it hasn't started in between: with the same count of starts it crashes for good
    pool.client.set_flow_run_state(run.id, Crashed(message=TASK_GONE))
    crashed = f"{pool.deployment(run)}: run {run.name} is Crashed: {TASK_GONE}"
    given_up = f"{crashed} It is given up: look at its log, then retry it in Prefect."
    within(120, "it is given up", lambda: given_up in pool.told)
    assert pool.names(run)[-1] == "Crashed"
    assert set(pool.told_of(run)) == {f"{crashed} {AGAIN}", given_up}


def test_a_run_that_fails_is_told(died: Died) -> None:
    pool, run = died.pool, died.failed
    (told,) = within(120, "it is told", lambda: set(pool.told_of(run)))
    assert told == (
        f"{pool.deployment(run)}: run {run.name} is Failed: Flow run encountered an exception:"
        " RuntimeError: no data Nothing starts it again: look at its log."
    )


def test_a_run_out_of_time_is_told(died: Died) -> None:
    pool, run = died.pool, died.too_slow
    (told,) = within(120, "it is told", lambda: set(pool.told_of(run)))
    assert told == (
        f"{pool.deployment(run)}: run {run.name} is TimedOut: Flow run exceeded timeout of"
        " 1.0 second(s) Nothing starts it again: look at its log."
    )


def test_the_alarms_of_the_aws_stack_find_every_bad_end_in_the_logs_of_runs(died: Died) -> None:
    for run in (died.failed, died.too_slow, died.misfit, died.interrupted):
        within(120, "it is told", lambda run=run: died.pool.told_of(run))
    lines = _text(died.pool.folder / "worker.log").splitlines()
    ends = [line for line in lines if "Finished in state " in line and "Task run '" not in line]
    bad = [line for line in ends if "Finished in state Completed(" not in line]
    found = {
        words: [line for line in lines if all(part in line for part in words)]
        for words in (*LOG_FAILED, LOG_CRASHED)
    }
    assert sorted(bad) == sorted(line for some in found.values() for line in some)
    assert all(found.values())


def test_a_run_that_no_worker_takes_is_told(died: Died) -> None:
    pool, run = died.pool, died.late
    (told,) = within(120, "it is told", lambda: set(pool.told_of(run)))
    assert told == (
        f"{pool.deployment(run)}: run {run.name} should have started 0 minutes ago, and no worker"
        " has taken it: is one running, and has it room?"
    )


def test_a_new_champion_and_one_taken_back_are_told(died: Died) -> None:
    wanted = "rides: version 7 is the new champion. RMSE 4.6 min"
    within(120, "it is told", lambda: wanted in died.pool.told)
    wanted = "rides: version 6 is champion again, version 7 was taken back: too slow"
    within(120, "it is told", lambda: wanted in died.pool.told)


def test_a_run_on_older_data_is_told(died: Died) -> None:
    wanted = "rides: a run goes on with the snapshot of May, because newer data couldn't be had: "
    within(120, "it is told", lambda: f"{wanted}the API is down" in died.pool.told)


def test_drift_is_told_once(died: Died) -> None:
    said = "rides: 2023-02 has drifted from what version 6 was trained on: trips are longer"
    later = "the snapshot of May"
    within(120, "what came after it is told", lambda: later in str(died.pool.told))
    assert died.pool.told.count(said) == 1


def test_the_alarm_of_the_aws_stack_finds_drift_in_the_log_of_its_run(died: Died) -> None:
    lines = _text(died.pool.folder / "worker.log").splitlines()
    (line,) = [line for line in lines if all(word in line for word in DRIFT)]
    assert line.endswith("drift of rides: trips are longer")


def test_no_event_was_dropped(died: Died) -> None:
    # where Prefect leaves what it has given up, as it did on SQLite:
    # trainyard/prefect/patches/sqlite_messaging.py
    dropped = PREFECT_HOME.value() / "dlq"
    assert [file.read_text()[:500] for file in dropped.glob("*")] == []


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
