"""Whole runs that compare a scored month with the month its model was chosen on."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

from flows.lifecycle.champion import load_champion
from flows.lifecycle.monitoring import Monitored
from flows.lifecycle.scoring import answers
from flows.lifecycle.serving_log import Answered, RequestLog
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.serving_rows import Limits, RowReader
from flows.platform.artifact_store import artifact_path, read
from flows.taxi.features import TRIP_COLUMNS
from flows.taxi.monitor import taxi_monitor
from flows.taxi.score import taxi_score
from flows.taxi.served import Trip
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from tests.e2e.flows.whole_runs import MODEL_NAME, Place, artifacts, ended, place, put_month, run

pytestmark = pytest.mark.server

ROWS = 6_000
START, END = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
SLOWER = START + (END - START) * 1.5
LIMITS = {"max_rmse_valid": 100, "max_inference_time": 1, "num_trials": 1}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, prefect_server: str
) -> Iterator[Place]:
    """A champion of the months 2023-01 and 2023-02; each test has a later month."""
    with place(tmp_path_factory.mktemp("trained"), empty_database) as here:
        for month in ("2023-01", "2023-02"):
            put_month(here.folder, month, rows=ROWS)
        done = run(data=str(here.folder), train_month="2023-01", valid_month="2023-02", **LIMITS)
        assert ended(done)[0] == "Completed"
        yield here


def of_month(flow: Any, here: Place, month: str) -> FlowRun:
    done = run(flow, data=str(here.folder), month=month)
    assert ended(done)[0] == "Completed", done.state
    return done


def log_requests(here: Place, month: str, trips: pl.DataFrame) -> None:
    """Log trips as if the champion had been asked about them in a month, a hundred at a time."""
    model = load_champion(MODEL_NAME, SPEC.trusted_types)
    rows = trips.select(TRIP_COLUMNS).cast(RowReader(Trip, Limits()).schema)
    log = RequestLog(here.store, SPEC, rows.columns, 1.0, Metrics())
    for start in range(0, len(rows), 100):
        some = rows[start : start + 100]
        at = datetime.fromisoformat(f"{month}-03T12:00")
        log.add(Answered(some, *answers(model, SPEC, some), "champion", "1", uuid4().hex, at, 0.1))
    log.write(last=True)


def found(here: Place, month: str) -> Monitored:
    file = artifact_path(here.store, "monitoring", MODEL_NAME, f"{month}.json")
    return Monitored.model_validate_json(read(file))


def drifts(server: str, run: FlowRun) -> list[dict[str, Any]]:
    """The events of drift that a run has emitted."""
    related = {"id": [f"prefect.flow-run.{run.id}"]}
    wanted = {"filter": {"event": {"name": ["trainyard.drift.detected"]}, "related": related}}
    end = time.monotonic() + 10
    events: list[dict[str, Any]] = []
    while not events and time.monotonic() < end:
        events = httpx.post(f"{server}/events/filter", json=wanted).json()["events"]
        time.sleep(0.3)
    return events


def log(run: FlowRun) -> list[str]:
    with get_client(sync_client=True) as client:
        mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return [line.message for line in client.read_logs(mine)]


def test_an_undrifted_month_has_a_page_and_nothing_else_happens(
    trained: Place, prefect_server: str
) -> None:
    put_month(trained.folder, "2023-03", rows=ROWS)
    of_month(taxi_score, trained, "2023-03")
    done = of_month(taxi_monitor, trained, "2023-03")
    what = found(trained, "2023-03")
    assert what.past == []
    assert (what.version, what.rows, what.reference) == ("1", ROWS, "green_tripdata 2023-02")
    page = str(artifacts(done.id)[f"{MODEL_NAME}-monitoring"].data)
    assert f"# {MODEL_NAME} version 1 in 2023-03: all within limits" in page
    assert what.page in page
    assert Path(what.page).stat().st_size < 2_000_000
    assert drifts(prefect_server, done) == []


def test_drift_is_said_in_an_event_that_names_month_version_and_data(
    trained: Place, prefect_server: str
) -> None:
    slow = synthetic_month("2023-04", rows=ROWS).with_columns(lpep_dropoff_datetime=SLOWER)
    put_month(trained.folder, "2023-04", slow)
    of_month(taxi_score, trained, "2023-04")
    done = of_month(taxi_monitor, trained, "2023-04")
    (event,) = drifts(prefect_server, done)
    assert event["resource"] == {
        "prefect.resource.id": f"trainyard.drift.{MODEL_NAME}.2023-04",
        "trainyard.model": MODEL_NAME,
        "trainyard.version": "1",
    }
    said = event["payload"]
    assert (said["month"], said["data"]) == ("2023-04", str(trained.folder))
    assert said["description"].startswith("rmse where truth is known ")
    (line,) = [line for line in log(done) if line.startswith(f"drift of {MODEL_NAME}: version 1")]
    assert said["description"] in line


def test_truth_that_comes_after_the_scores_is_joined_to_them(trained: Place) -> None:
    month = synthetic_month("2023-05", rows=ROWS)
    put_month(trained.folder, "2023-05", month.drop("lpep_dropoff_datetime"))
    of_month(taxi_score, trained, "2023-05")
    of_month(taxi_monitor, trained, "2023-05")
    assert found(trained, "2023-05").truths == 0
    # as trips end: in another order, too
    put_month(trained.folder, "2023-05", month.reverse().with_columns(lpep_dropoff_datetime=SLOWER))
    of_month(taxi_monitor, trained, "2023-05")
    what = found(trained, "2023-05")
    assert what.truths > 0.8 * ROWS
    assert [check.name for check in what.past] == ["rmse where truth is known"]


def test_without_the_months_file_what_was_scored_is_compared(trained: Place) -> None:
    name = put_month(trained.folder, "2023-06", rows=ROWS)
    of_month(taxi_score, trained, "2023-06")
    (trained.folder / name).unlink()
    done = of_month(taxi_monitor, trained, "2023-06")
    assert found(trained, "2023-06").past == []
    assert any(line.startswith("drop-offs that came later aren't known: no ") for line in log(done))


def test_a_month_without_scores_fails_and_says_what_to_do(trained: Place) -> None:
    state, message = ended(run(taxi_monitor, month="2023-07"))
    assert state == "Failed"
    assert f"{MODEL_NAME} has no scores of 2023-07: score the month first" in message


def test_what_was_asked_over_http_is_monitored_with_the_truth_that_came_since(
    trained: Place, prefect_server: str
) -> None:
    trips = synthetic_month("2023-08", rows=ROWS)
    put_month(trained.folder, "2023-08", trips)
    log_requests(trained, "2023-08", trips.sample(2_000, seed=1))
    done = run(taxi_monitor, data=str(trained.folder), month="2023-08", rows="served")
    assert ended(done)[0] == "Completed", done.state
    what = found(trained, "2023-08-served")
    assert (what.version, what.rows, what.past) == ("1", 2_000, [])
    assert 1_500 < what.truths <= 2_000
    assert "rmse where truth is known" in {check.name for check in what.checks}
    assert what.note == "Not compared, because requests don't have it: fare, volume."
    page = str(artifacts(done.id)[f"{MODEL_NAME}-monitoring-served"].data)
    assert f"# {MODEL_NAME} version 1 in 2023-08's requests: all within limits" in page
    assert what.page in page
    assert drifts(prefect_server, done) == []
