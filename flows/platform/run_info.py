"""What Prefect knows about the flow run that is under way."""

import inspect
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed
from prefect.utilities.urls import url_for

ROOT = Path(__file__).resolve().parents[2]
UNFINISHED = [StateType.PENDING, StateType.RUNNING]


@dataclass(frozen=True)
class RunInfo:
    """The current flow run."""

    id: str
    name: str
    scheduled: datetime
    """When the orchestrator meant it to start (UTC): the machine's clock has no say in names."""
    url: str
    """Its page in Prefect's dashboard; empty where there is none."""
    entrypoint: str = ""
    """Its flow's file and function."""
    commit: str = ""
    """The code's, with `-dirty` if files differ from it; empty where nothing knows it."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """With the flow's own defaults."""

    def experiment_name(self, prefix: str) -> str:
        """A name that sorts by the scheduled time, like `taxi-train 2026-03-05 06:00:00.000Z`."""
        stamp = self.scheduled.isoformat(sep=" ", timespec="milliseconds")
        return f"{prefix} {stamp.removesuffix('+00:00')}Z"


def current_run() -> RunInfo:
    """The flow run that this code is part of.

    Raises:
        RuntimeError: called outside of a flow run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("there is no flow run here: call this from inside a flow")
    run = context.flow_run
    flow = getattr(context, "flow", None)
    scheduled = run.expected_start_time or run.start_time or datetime.now(UTC)
    return RunInfo(
        id=str(run.id),
        name=run.name,
        scheduled=scheduled.astimezone(UTC),
        url=url_for("flow-run", run.id) or "",
        entrypoint=_entrypoint(flow.fn) if flow else "",
        commit=code_commit(),
        parameters=dict(getattr(context, "parameters", None) or run.parameters),
    )


def current_image() -> str:
    """The image that this flow run's container was started from; empty where it has none."""
    context = FlowRunContext.get()
    deployment = context.flow_run.deployment_id if context and context.flow_run else None
    if "TRAINYARD_COMMIT" not in os.environ or deployment is None:  # which every image sets
        return ""
    with get_client(sync_client=True) as client:
        return str(client.read_deployment(deployment).job_variables.get("image", ""))


def _entrypoint(function: Callable[..., Any]) -> str:
    file = Path(inspect.getsourcefile(function) or "").resolve()
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return f"{shown}:{function.__name__}"


@cache
def code_commit() -> str:
    """What an image was built from, else what the clone is at."""
    if built_from := os.environ.get("TRAINYARD_COMMIT"):
        return built_from
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def end_killed_attempts() -> None:
    """Crash what earlier attempts of this run left Running: they were killed, so nobody else does.

    Their task runs, and the subflows' with theirs. A first attempt has none.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return
    with get_client(sync_client=True) as client:
        _end_unfinished(client, context.flow_run.id)


def _end_unfinished(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    ended: State[None] = Crashed(message="Its attempt at the flow run was killed.")
    flows = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    running = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
    tasks = TaskRunFilter(state=running)
    for task_run in client.read_task_runs(flow_run_filter=flows, task_run_filter=tasks):
        client.set_task_run_state(task_run.id, ended, force=True)
    subflows = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)),
    )
    for subflow in client.read_flow_runs(flow_run_filter=subflows):
        _end_unfinished(client, subflow.id)
        client.set_flow_run_state(subflow.id, ended, force=True)
