"""The stack's services: what each is started with, and what is remembered of it."""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from trainyard.contract.outputs import StackOutputs

POOL = "trainyard"
DOCKER_POOL = "trainyard-docker"
WORKER = "laptop"
LABELS = {"prefect": "Prefect", "mlflow": "MLflow", "worker": "worker"}
USUAL_PORTS = {"prefect": 4200, "mlflow": 5000}


class Running(BaseModel):
    """A service that was started, and may have died since."""

    pid: int
    started: datetime
    port: int | None = None
    pool: str = POOL
    """Of the worker."""

    @property
    def url(self) -> str | None:
        return f"http://127.0.0.1:{self.port}" if self.port else None

    @property
    def where(self) -> str:
        return self.url or f"polls the pool {self.pool}"


class State(BaseModel):
    """What `.trainyard/state.json` remembers."""

    services: dict[str, Running] = {}
    image: str = ""
    """What runs are started from as containers; without it they are processes."""

    @property
    def pool(self) -> str:
        return DOCKER_POOL if self.image else POOL


@dataclass(frozen=True)
class Health:
    """One service as `status` finds it."""

    service: str
    state: str
    running: Running | None
    memory: int


@dataclass(frozen=True)
class Command:
    """How a service is started."""

    command: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Beside the stack's."""


def command_of(name: str, home: Path, port: int | None, state: State) -> Command:
    """How a service of the stack in `home` is started; the worker polls the state's Prefect."""
    python = [sys.executable, "-m"]
    listens = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "prefect":
        return Command(
            [*python, "prefect", "server", "start", *listens],
            home,
            {
                # or its pages look for the API on 4200, whatever the port
                "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
                # these pages alone, on whichever name; by default every page may ask
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": (
                    f"http://127.0.0.1:{port},http://localhost:{port}"
                ),
                "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": (
                    "trainyard.prefect.patches.sqlite_messaging"
                ),
            },
        )
    if name == "mlflow":
        command = [*python, "mlflow", "server", *listens, "--workers", "1"]
        command += ["--backend-store-uri", "sqlite:///mlflow.db"]
        command += ["--artifacts-destination", str(home / "artifacts/mlflow")]
        hosts = "localhost:*,127.0.0.1:*"
        if state.image:  # this machine's name in containers
            hosts += ",host.docker.internal:*"
        command += ["--allowed-hosts", hosts]
        # 404 MB instead of 1.4 GB; nothing here uses jobs
        return Command(command, home / "mlflow", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    kind = "docker" if state.image else "process"
    command = [*python, "prefect", "worker", "start", "--type", kind, "--name", WORKER]
    return Command(
        [*command, "--pool", state.pool, "--no-create-pool-if-not-found"],
        home,
        {
            "PREFECT_API_URL": f"{state.services['prefect'].url}/api",
            # a person is waiting: look for runs every 2 s instead of 10
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            # the page's Cancel button ends the process too
            "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        },
    )


def give_up_lost_runs(outputs: StackOutputs) -> None:
    """Mark as crashed the runs whose worker was stopped under them.

    Nobody else would: they would look as if they ran for ever.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    going = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
    with (
        temporary_settings({PREFECT_API_URL: outputs.prefect_api_url}),
        get_client(sync_client=True) as client,
    ):
        for run in client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": going}),
            work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL, DOCKER_POOL]}}),
        ):
            client.set_flow_run_state(
                run.id, Crashed(message="the stack was stopped under this run"), force=True
            )


def left_behind(outputs: StackOutputs) -> bool:
    """Whether deployments are in the stack's other work pool, which no worker polls now."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import WorkPoolFilter
    from prefect.settings import PREFECT_API_URL, temporary_settings

    others = [name for name in (POOL, DOCKER_POOL) if name != outputs.work_pool.name]
    with (
        temporary_settings({PREFECT_API_URL: outputs.prefect_api_url}),
        get_client(sync_client=True) as client,
    ):
        pool = WorkPoolFilter.model_validate({"name": {"any_": others}})
        return bool(client.read_deployments(work_pool_filter=pool, limit=1))
