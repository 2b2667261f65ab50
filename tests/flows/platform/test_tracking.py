import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient
from packaging.requirements import Requirement
from prefect.exceptions import TerminationSignal

from flows.platform.run_info import RunInfo
from flows.platform.tracking import (
    TRAINING,
    VALIDATION,
    Experiment,
    InputData,
    TrackingError,
    discard_runs,
    open_experiment,
    pinned,
    require_server,
    tracked_run,
)
from flows.taxi.tasks import PACKAGES

SIX = datetime(2026, 3, 5, 6, tzinfo=UTC)


def run_of_prefect() -> RunInfo:
    url = "http://prefect/run/1"
    return RunInfo(id=uuid4().hex, name="train 2023-01", scheduled=SIX, url=url)


def opened(client: MlflowClient, run: RunInfo | None = None) -> Experiment:
    return open_experiment(client.tracking_uri, uuid4().hex, run or run_of_prefect())


@contextmanager
def server(status: int) -> Iterator[str]:
    """Answers everything with `status`; gives its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_the_experiment_is_named_from_the_scheduled_time_and_leads_back_to_prefect(
    client: MlflowClient,
) -> None:
    run = run_of_prefect()
    experiment = open_experiment(client.tracking_uri, "taxi-train", run)
    assert experiment.name == "taxi-train 2026-03-05 06:00:00.000Z"
    tags = client.get_experiment(experiment.id).tags
    assert tags["prefect.flow_run_id"] == run.id
    assert tags["mlflow.note.content"] == "Prefect run [train 2023-01](http://prefect/run/1)"


def test_a_retry_finds_the_experiment_of_its_run(client: MlflowClient) -> None:
    run, prefix = run_of_prefect(), uuid4().hex
    first, again = (open_experiment(client.tracking_uri, prefix, run) for _ in range(2))
    assert first == again


def test_two_runs_scheduled_for_the_same_moment_have_an_experiment_each(
    client: MlflowClient,
) -> None:
    prefix = uuid4().hex
    runs = [run_of_prefect(), run_of_prefect(), run_of_prefect()]
    first, second, third = (open_experiment(client.tracking_uri, prefix, run) for run in runs)
    assert len({first.id, second.id, third.id}) == 3
    assert second.name.startswith(first.name)
    assert second.tags["prefect.flow_run_id"] == runs[1].id
    assert open_experiment(client.tracking_uri, prefix, runs[1]) == second


def test_runs_are_named_and_lead_back_to_prefect(client: MlflowClient) -> None:
    experiment = opened(client)
    with tracked_run(experiment, "trial 1", {"model": "xgboost"}) as run_id:
        mlflow.log_metric("rmse_valid", 5)
    run = client.get_run(run_id)
    assert run.info.run_name == "trial 1"
    assert run.info.status == "FINISHED"
    assert run.data.tags["model"] == "xgboost"
    assert "(http://prefect/run/1)" in run.data.tags["mlflow.note.content"]


def test_trials_are_nested_in_their_search(client: MlflowClient) -> None:
    experiment = opened(client)
    with (
        tracked_run(experiment, "search") as parent,
        tracked_run(experiment, "trial 1", nested=True) as child,
    ):
        pass
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == parent


def fail(experiment: Experiment) -> None:
    with tracked_run(experiment, "trial 1"):
        raise ZeroDivisionError


def test_an_error_marks_the_run_as_failed(client: MlflowClient) -> None:
    experiment = opened(client)
    with pytest.raises(ZeroDivisionError):
        fail(experiment)
    (run,) = client.search_runs([experiment.id])
    assert run.info.status == "FAILED"


def test_what_a_killed_attempt_left_is_put_aside_and_nothing_else(client: MlflowClient) -> None:
    experiment = opened(client)
    for model in ("linear", "xgboost", "xgboost"):
        with tracked_run(experiment, model, {"model": model}):
            pass
    discard_runs(experiment, {"model": "xgboost"})
    (left,) = client.search_runs([experiment.id])
    assert left.info.run_name == "linear"


def test_an_mlflow_that_is_not_there_is_told_at_once_with_its_address() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(TrackingError, match=rf"doesn't answer at {uri} .*refused.*`make status`"):
        open_experiment(uri, "taxi-train", run_of_prefect())
    assert time.monotonic() - start < 5


def test_an_mlflow_that_is_not_well_is_told_with_its_status() -> None:
    with server(503) as uri, pytest.raises(TrackingError, match=rf"at {uri} .*503"):
        require_server(uri)


@pytest.mark.parametrize("uri", ["http://", "http://host:port", "https://[::1"])
def test_an_address_that_is_none_is_told_as_one(uri: str) -> None:
    with pytest.raises(TrackingError, match="MLflow doesn't answer at http"):
        require_server(uri)


def test_an_mlflow_that_is_well_is_taken_with_or_without_a_slash() -> None:
    with server(200) as uri:
        require_server(uri)
        require_server(f"{uri}/")


def test_pages_of_experiments_and_runs() -> None:
    experiment = Experiment(id="7", name="x", tracking_uri="http://mlflow:5000", tags={})
    page, _, query = experiment.url("rmse_valid").partition("?")
    assert page == "http://mlflow:5000/#/experiments/7/runs"
    assert "orderByKey=metrics.%60rmse_valid%60&orderByAsc=true" in query
    ours = "workflowType=machine_learning"  # else MLflow opens its pages for language models
    assert query.split("&")[0] == ours
    assert experiment.run_url("ab") == f"http://mlflow:5000/#/experiments/7/runs/ab?{ours}"
    version = experiment.model_url("taxi", "3")
    assert version == f"http://mlflow:5000/#/models/taxi/versions/3?{ours}"


def test_requirements_are_what_is_installed() -> None:
    assert pinned(["mlflow", "no-such-package"]) == [f"mlflow=={mlflow.__version__}"]


def test_a_package_of_another_name_elsewhere_is_required_by_platform() -> None:
    here = {"no-such-package": 'sys_platform == "linux"', "mlflow": 'sys_platform != "linux"'}
    assert pinned([here]) == [
        f'no-such-package=={mlflow.__version__}; sys_platform == "linux"',
        f'mlflow=={mlflow.__version__}; sys_platform != "linux"',
    ]


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_what_the_taxi_model_requires_installs_on_any_platform(platform: str) -> None:
    wanted = [Requirement(line) for line in pinned(PACKAGES)]
    names = [
        r.name for r in wanted if not r.marker or r.marker.evaluate({"sys_platform": platform})
    ]
    assert ("xgboost-cpu" in names, "xgboost" in names) == (
        platform == "linux",
        platform != "linux",
    )
    assert {"numpy", "pandas", "polars", "scikit-learn", "skops"} < set(names)


def test_runs_say_which_code_and_data_they_are_of(client: MlflowClient) -> None:
    run = replace(run_of_prefect(), entrypoint="flows/a.py:b", commit="0123abc")
    data = {
        context: [InputData(name=name, sha256=digest * 64, uri="s3://raw/a.parquet", rows=7)]
        for context, name, digest in ((TRAINING, "january", "1"), (VALIDATION, "february", "2"))
    }
    with tracked_run(opened(client, run), "trial 1", data=data) as run_id:
        pass
    found = client.get_run(run_id)
    assert found.data.tags["mlflow.source.name"] == "flows/a.py:b"
    assert found.data.tags["mlflow.source.git.commit"] == "0123abc"
    inputs = {
        each.tags[0].value: (each.dataset.name, each.dataset.digest, each.dataset.source)
        for each in found.inputs.dataset_inputs
    }
    assert inputs == {
        "training": ("january", "1" * 32, '{"uri": "s3://raw/a.parquet"}'),
        "validation": ("february", "2" * 32, '{"uri": "s3://raw/a.parquet"}'),
    }


@pytest.mark.parametrize("stop", [TerminationSignal(signal=15), KeyboardInterrupt()])
def test_a_run_that_is_cancelled_is_killed_with_its_parent(
    client: MlflowClient, stop: BaseException
) -> None:
    experiment = opened(client)

    def search() -> None:
        with tracked_run(experiment, "search"), tracked_run(experiment, "trial 1", nested=True):
            raise stop

    with pytest.raises(type(stop)):
        search()
    runs = client.search_runs([experiment.id])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert mlflow.active_run() is None
