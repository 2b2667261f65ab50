"""What a flow run leaves behind when it is killed, runs out of time, or meets another one."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from mlflow import MlflowClient
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Pending, Scheduled

from tests.conftest import ROOT

pytestmark = pytest.mark.server

FLOWS = f"""
import sys, time
from pathlib import Path
from prefect import flow, task
sys.path.append({str(ROOT)!r})
from flows.platform.locks import exclusive
from flows.platform.run_info import end_killed_attempts

@task
def work(folder):
    marker = Path(folder, "started")
    if not marker.exists():
        marker.touch()
        time.sleep(600)

@flow
def part(folder):
    work(folder)

@flow
def killed(folder: str):
    end_killed_attempts()
    part(folder)
    work(folder)

@flow(timeout_seconds=2)
def slow(folder: str):
    time.sleep(600)

@task
def alone(folder):
    with exclusive("promotion"):
        log = Path(folder, "log")
        before = log.read_text() if log.exists() else ""
        time.sleep(0.5)
        log.write_text(before + "x")

@flow
def tracked(folder: str):
    from flows.platform.run_info import current_run
    from flows.platform.tracking import open_experiment, tracked_run

    experiment = open_experiment(f"sqlite:///{{folder}}/mlflow.db", "tracked", current_run())
    with tracked_run(experiment, "search"), tracked_run(experiment, "trial", nested=True):
        Path(folder, "started").touch()
        time.sleep(600)

@flow
def turns(folder: str):
    alone(folder)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows_under_test.py").write_text(FLOWS)
    return tmp_path


def start(folder: Path, api: str, flow: str, run: UUID | None = None) -> subprocess.Popen[bytes]:
    """A process that runs a flow, or goes on with one of its runs."""
    script = (
        f"from flows_under_test import {flow} as flow\n"
        "from prefect.flow_engine import run_flow\n"
        "from prefect.client.orchestration import get_client\n"
        f"client = get_client(sync_client=True)\n"
        f"run = client.read_flow_run({str(run)!r}) if {run is not None} else None\n"
        f"run_flow(flow, flow_run=run, parameters=dict(folder={str(folder)!r}), "
        "return_type='state')\n"
    )
    environment = os.environ | {"PREFECT_API_URL": api, "PYTHONPATH": str(folder)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=folder)


def waiting_run(flow: str) -> UUID:
    with get_client(sync_client=True) as client:

        def nothing(folder: str) -> None: ...

        run = client.create_flow_run(
            Flow(nothing, name=flow), parameters={"folder": ""}, state=Scheduled()
        )
        return run.id


def states(run: UUID) -> tuple[FlowRun, list[str], list[str]]:
    """A run, the names of its task runs' states, and those of its subflows and their tasks."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run)
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        tasks = client.read_task_runs(flow_run_filter=mine)
        parents = [task.id for task in tasks]
        subflows = [
            each
            for each in client.read_flow_runs(limit=200)
            if each.parent_task_run_id and each.parent_task_run_id in parents
        ]
        below = client.read_task_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=[each.id for each in subflows] or [uuid4()])
            )
        )
    return (
        found,
        sorted(task.state_name or "" for task in tasks),
        sorted(each.state_name or "" for each in [*subflows, *below]),
    )


def test_what_a_killed_attempt_left_running_is_ended_by_the_next(
    folder: Path, prefect_server: str
) -> None:
    run = waiting_run("killed")
    with start(folder, prefect_server, "killed", run) as first:
        end = time.monotonic() + 120
        while not (folder / "started").exists() or "Running" not in states(run)[2][1:]:
            assert time.monotonic() < end, states(run)
            time.sleep(0.5)
        os.kill(first.pid, signal.SIGKILL)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Scheduled(), force=True)
    with start(folder, prefect_server, "killed", run) as second:
        assert second.wait(120) == 0
    end = time.monotonic() + 60
    while "Running" in str(states(run)) and time.monotonic() < end:
        time.sleep(0.5)
    found, tasks, below = states(run)
    assert found.state_name == "Completed"
    assert "Running" not in [*tasks, *below], (tasks, below)
    assert "Crashed" in below


def test_a_run_that_takes_too_long_says_so_and_frees_its_slot(
    folder: Path, prefect_server: str
) -> None:
    def may_start(run: UUID) -> bool:
        """As a worker asks."""
        return client.set_flow_run_state(run, Pending()).status == SetStateStatus.ACCEPT

    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("slow")
        deployment = client.create_deployment(flow, name="slow", concurrency_limit=1)
        run, other = (
            client.create_flow_run_from_deployment(deployment, parameters={"folder": ""}).id
            for _ in range(2)
        )
        assert may_start(run)
        assert not may_start(other)
        with start(folder, prefect_server, "slow", run) as process:
            process.wait(120)
        assert may_start(other)
    found, *_ = states(run)
    assert found.state
    assert found.state_name == "TimedOut"
    assert "exceeded timeout of 2.0 second(s)" in (found.state.message or "")


def test_ten_runs_take_turns_where_they_must(folder: Path, prefect_server: str) -> None:
    with ThreadPoolExecutor(10) as threads:
        runs = [
            threads.submit(lambda: start(folder, prefect_server, "turns").wait(240))
            for _ in range(10)
        ]
    assert [run.result() for run in runs] == [0] * 10
    assert (folder / "log").read_text() == "x" * 10


def test_no_more_runs_of_a_deployment_start_than_its_limit_when_ten_ask_at_once(
    prefect_server: str,
) -> None:
    def may_start(run: UUID) -> bool:
        with get_client(sync_client=True) as client:
            return client.set_flow_run_state(run, Pending()).status == SetStateStatus.ACCEPT

    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("limited")
        deployment = client.create_deployment(flow, name="limited", concurrency_limit=2)
        runs = [client.create_flow_run_from_deployment(deployment).id for _ in range(10)]
    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(may_start, runs)) == 2


def test_the_mlflow_runs_of_a_run_that_is_stopped_are_killed(
    folder: Path, prefect_server: str
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            Flow(lambda folder: None, name="tracked"),
            parameters={"folder": str(folder)},
            state=Scheduled(),
        )
    environment = os.environ | {
        "PREFECT_API_URL": prefect_server,
        "PREFECT__FLOW_RUN_ID": str(run.id),
        "PREFECT__FLOW_ENTRYPOINT": f"{folder / 'flows_under_test.py'}:tracked",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "prefect.engine"], env=environment, cwd=folder
    ) as process:
        end = time.monotonic() + 120
        while not (folder / "started").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)
        process.terminate()  # what cancelling does, and Spot
        process.wait(60)
    mlflow = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = mlflow.search_experiments(filter_string="name LIKE 'tracked%'")
    runs = mlflow.search_runs([experiment.experiment_id])
    assert [each.info.status for each in runs] == ["KILLED", "KILLED"]
