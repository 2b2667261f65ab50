"""Whole runs of the transactions pipelines and of stars, against APIs that fail."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.lifecycle.reproduce import reproduce
from flows.platform.synthetic_api import Answer, serving
from flows.stars.stars import stars
from flows.transactions import ingest, train
from flows.transactions.contract import augment
from flows.transactions.fake_api import UnreliableApi
from flows.transactions.ingest import call_unreliable_api, transactions_ingest
from flows.transactions.snapshots import last_snapshot, read_snapshot
from flows.transactions.spec import SPEC
from flows.transactions.train import transactions_train
from tests.conftest import ROOT
from tests.e2e.flows.whole_runs import Place, artifacts, ended, place, read, run
from tests.flows.transactions.whole_reads import small_api
from trainyard.prefect.automations import automations

pytestmark = pytest.mark.server

DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer transactions, and no waits between a task's retries."""
    monkeypatch.setattr(ingest, "UnreliableApi", small_api)
    assert (call_unreliable_api.retries, call_unreliable_api.retry_delay_seconds) == (3, 5)
    monkeypatch.setattr(call_unreliable_api, "retry_delay_seconds", 0)


def snapshots(here: Place) -> list[pl.DataFrame]:
    return [
        pl.read_parquet(file)
        for file in sorted((here.folder / "store/transactions/snapshots").glob("*.parquet"))
    ]


def tasks_of(done: FlowRun, name: str) -> list[TaskRun]:
    mine = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[done.id]))
    with get_client(sync_client=True) as client:
        return [each for each in client.read_task_runs(task_run_filter=mine) if name in each.name]


def test_transactions_are_ingested_quarantined_and_reported(here: Place) -> None:
    done = run(transactions_ingest, seed=1)
    assert ended(done) == ("Completed", "")
    (snapshot,) = snapshots(here)
    broken = pl.read_parquet(here.folder / f"store/runs/{done.id}/quarantine/transactions.parquet")
    assert (len(snapshot), len(broken)) == (303, 3)
    report = str(artifacts(done.id)["transactions-ingest-report"].data)
    assert report.startswith("# 303 transactions of synthetic\n")
    assert "| amount unreadable | 1 |" in report
    assert "| answered 500 |" in report


def test_a_model_is_trained_on_what_was_ingested_and_on_the_last_snapshot_where_that_fails(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(train, "older_data_used", lambda *said: told.append(said))
    first = run(transactions_train)
    assert ended(first) == ("Completed", "")
    page = str(artifacts(first.id)[f"{SPEC.name}-card"].data)
    assert page.startswith(f"# {SPEC.name} version 1 is the new champion: the first one")

    second = run(transactions_train, api=DEAD)
    name, message = ended(second)
    assert name == "Completed"
    assert message.startswith(f"trained on {here.store}/transactions/snapshots/")
    assert "because the ingest failed: Flow run encountered an exception: ApiUn" in message
    assert f"{DEAD}: given up after 10 failures in a row: no connection" in message
    assert len(tasks_of(second, "use-last-snapshot")) == 1
    assert not tasks_of(first, "use-last-snapshot")
    assert [said[0] for said in told] == ["transactions"]
    assert len(snapshots(here)) == 1

    assert reproduce(here.client, SPEC.name, "champion").startswith(
        f"{SPEC.name} version 1 is reproduced: "
    )


def test_without_a_snapshot_a_dead_api_fails_the_training_and_people_hear_of_it(
    here: Place,
) -> None:
    done = run(transactions_train, api=DEAD, snapshot="new")
    name, message = ended(done)
    assert "there is no snapshot of transactions to train on. Flow run" in message
    assert f"{DEAD}: given up after 10 failures in a row: no connection" in message
    heard = next(
        each
        for each in automations("pool", uuid4())
        if each.name == "pool: people hear of a run that failed"
    )
    assert f"prefect.flow-run.{name}" in heard.trigger.expect  # type: ignore[union-attr]


def test_a_page_that_never_comes_fails_after_its_retries(here: Place) -> None:
    """The client's three requests in each try of the task, which has three more tries."""
    requests: list[str] = []

    def out_of_order(path: str) -> Answer:
        requests.append(path)
        return Answer(status=500, headers={"Retry-After": "0"})

    with serving(out_of_order) as url:
        done = run(transactions_ingest, api=url, give_up_after=100)
    assert ended(done)[0] == "Failed"
    assert f"{url}/transactions?page=1: answered 500" in ended(done)[1]
    (task,) = tasks_of(done, "call-unreliable-api")
    assert (task.run_count, len(requests)) == (4, 12)


@contextmanager
def trickling() -> Iterator[str]:
    """A server that sends an answer byte by byte and never ends: no time-out of a read meets it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not over.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()


def test_a_task_that_hangs_is_ended_by_its_time_out(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call_unreliable_api.timeout_seconds == 300
    monkeypatch.setattr(call_unreliable_api, "timeout_seconds", 1.0)
    monkeypatch.setattr(call_unreliable_api, "retries", 0)
    with trickling() as url:
        done = run(transactions_ingest, api=url)
    (task,) = tasks_of(done, "call-unreliable-api")
    assert task.state is not None
    assert task.state.name == "TimedOut"
    assert ended(done)[0] == "Failed"
    assert f"{url}: page 1 took longer than the 1 s that its task has" in ended(done)[1]


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from flows.transactions import ingest, train
from tests.flows.transactions.whole_reads import small_api

def kill(connection):
    if not next(left, 0):
        os.kill(os.getpid(), signal.SIGKILL)

left = iter([1, 1, 1])
sa.event.listen(sa.Engine, "commit", kill)
ingest.UnreliableApi = small_api
waiting = get_client(sync_client=True).read_flow_run(sys.argv[1])
run_flow(ingest.transactions_ingest, flow_run=waiting, parameters={})
"""


def test_a_run_killed_within_a_page_loses_and_doubles_nothing(
    here: Place, prefect_server: str
) -> None:
    with get_client(sync_client=True) as client:
        waiting = client.create_flow_run(transactions_ingest, state=Scheduled())
    environment = os.environ | {"PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(waiting.id)], env=environment, check=False, timeout=120
    )
    assert done.returncode == -9
    assert not snapshots(here)
    again = read(waiting.id)
    run_flow(transactions_ingest, flow_run=again, parameters={}, return_type="state")
    assert ended(read(waiting.id)) == ("Completed", "")
    assert read(waiting.id).run_count == 2
    api = small_api(42)
    (snapshot,) = snapshots(here)
    assert snapshot["id"].is_unique().all()
    assert set(augment(api.versions[0]).rows["id"]) <= set(snapshot["id"])


def test_on_s3_a_later_run_keeps_what_an_earlier_one_ingested(
    s3: str, tmp_path: Path, empty_database: Path, prefect_server: str
) -> None:
    """Without a database of its own, which S3 can't hold."""
    with place(tmp_path, empty_database, s3):
        for known in (150, 50):
            with serving(UnreliableApi(0, known, page_size=50, faults={})) as url:
                assert ended(run(transactions_ingest, api=url)) == ("Completed", "")
        last = last_snapshot(s3)
    assert last is not None
    assert read_snapshot(last)[0].rows == 149


def test_stars_are_asked_for_at_once(here: Place) -> None:
    done = run(stars)
    assert ended(done)[0] == "Completed"
    assert "| pola-rs/polars | 36,000 |\n| pulumi/pulumi | 24,500 |" in str(
        artifacts(done.id)["stars"].data
    )
    started = [each.start_time for each in tasks_of(done, "stars-of-") if each.start_time]
    ended_ = [each.end_time for each in tasks_of(done, "stars-of-") if each.end_time]
    assert len(started) == len(ended_) == 4
    assert max(started) < min(ended_)
    failed = run(stars, repositories=["nobody/nothing"])
    assert "/repos/nobody/nothing: answered 404; check the address" in ended(failed)[1]
