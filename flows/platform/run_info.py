"""What Prefect knows about the flow run that is under way."""

from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.context import FlowRunContext
from prefect.utilities.urls import url_for


@dataclass(frozen=True)
class RunInfo:
    """The current flow run."""

    id: str
    name: str
    scheduled: datetime
    """When the orchestrator meant it to start (UTC): the machine's clock has no say in names."""
    url: str
    """Its page in Prefect's dashboard; empty where there is none."""

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
    scheduled = run.expected_start_time or run.start_time or datetime.now(UTC)
    return RunInfo(
        id=str(run.id),
        name=run.name,
        scheduled=scheduled.astimezone(UTC),
        url=url_for("flow-run", run.id) or "",
    )
