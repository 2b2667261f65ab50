"""What tests of whole flow runs share: a place for a run's outside, and runs as workers do them."""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import mlflow
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.flow_engine import run_flow
from prefect.states import Scheduled, State

from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from flows.taxi.train import taxi_train

MODEL_NAME = SPEC.name


@dataclass(frozen=True)
class Place:
    """A folder that holds an MLflow on a SQLite file, and an artifact store."""

    folder: Path
    store: str

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri)

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias(MODEL_NAME, "champion").version)

    def registered(self) -> list[str]:
        return [str(version.version) for version in self.client.search_model_versions()]

    def experiment_of(self, run: FlowRun) -> Experiment:
        condition = f"tags.`prefect.flow_run_id` = '{run.id}'"
        (experiment,) = self.client.search_experiments(filter_string=condition)
        return experiment

    def runs_of(self, run: FlowRun) -> list[Run]:
        return list(self.client.search_runs([self.experiment_of(run).experiment_id]))


@contextmanager
def place(folder: Path, database: Path, store: str | None = None) -> Iterator[Place]:
    """A place in `folder`, which runs find by their environment; `database` is copied."""
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    here = Place(folder, store or str(folder / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts artifacts without a server
        patch.setenv("MLFLOW_TRACKING_URI", here.tracking_uri)
        patch.setenv("TRAINYARD_ARTIFACT_STORE", here.store)
        yield here
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def put_month(folder: Path, month: str, frame: pl.DataFrame | None = None, rows: int = 300) -> str:
    """Write a raw month as TLC names it, a synthetic one if none is given; gives its name."""
    frame = synthetic_month(month, rows=rows) if frame is None else frame
    name = f"green_tripdata_{month}.parquet"
    frame.write_parquet(folder / name)
    return name


def run(flow: Flow[..., Any] = taxi_train, **parameters: object) -> FlowRun:
    """Run a flow as a user's script does; gives what the server then knows about the run."""
    started: Any = flow(**parameters, return_state=True)
    state: State[Any] = asyncio.run(started) if inspect.iscoroutine(started) else started
    assert state.state_details.flow_run_id is not None
    return read(state.state_details.flow_run_id)


@contextmanager
def paused(flow: Flow[..., Any], **parameters: object) -> Iterator[FlowRun]:
    """A run that waits for an answer, in another thread; it is over when the block is."""
    waiting = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
    with get_client(sync_client=True) as client:
        known = {each.id for each in client.read_flow_runs(flow_run_filter=waiting)}
        thread = threading.Thread(target=run, args=(flow,), kwargs=parameters, daemon=True)
        thread.start()
        end = time.monotonic() + 60
        while not (
            found := [
                each
                for each in client.read_flow_runs(flow_run_filter=waiting)
                if each.id not in known
            ]
        ):
            assert thread.is_alive(), "the run ended without a pause"
            assert time.monotonic() < end, "no run pauses"
            time.sleep(0.5)
    yield found[0]
    thread.join(60)
    assert not thread.is_alive()


def schedule(moment: datetime, **parameters: object) -> FlowRun:
    """A run that waits for its worker."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run(
            taxi_train, parameters=parameters, state=Scheduled(scheduled_time=moment)
        )


def execute(scheduled: FlowRun) -> FlowRun:
    """Run what was scheduled as a worker does; gives what the server then knows about it."""
    waiting = read(scheduled.id)
    run_flow(taxi_train, flow_run=waiting, parameters=waiting.parameters, return_type="state")
    return read(scheduled.id)


def read(run_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def artifacts(*run_ids: UUID) -> dict[str | None, Artifact]:
    """The artifacts of runs, by their key."""
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=list(run_ids)))
    with get_client(sync_client=True) as client:
        return {found.key: found for found in client.read_artifacts(artifact_filter=mine)}


def ended(run: FlowRun) -> tuple[str, str]:
    """A run's final state: its name, and the message that a user reads."""
    assert run.state is not None
    return run.state.name or "", run.state.message or ""
