"""Prefect's ECS worker, deaf to what ECS says of a task that a newer start of its run has replaced.

`python -m trainyard.prefect.patches.worker worker start ...`, as `prefect worker start ...`. Its
observer asks only of which run a message is. One that comes late (the queue delivers it twice, or
the worker or the API was away) would crash the run's new start, whose task lives on beside the next
one.

Where the API is away it waits, too: a message that isn't handled comes again after five minutes.

This module goes when the handlers in `prefect_aws/observers/ecs.py` compare a message's task with
the newest one of its run: as of prefect-aws 0.7.12 they ask for the run's state only.
"""

import functools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_logger
from prefect_aws.observers.ecs import ecs_observer
from tenacity import retry, retry_if_exception_type, wait_fixed

# Prefect's clock and ECS's are two; a start is longer apart from the one before.
CLOCKS = timedelta(seconds=5)


def replaced(created: datetime, states: Sequence[State]) -> bool:
    """Whether a task made at that time is not the one that its run has, or waits for, now."""
    in_order = sorted(states, key=lambda state: state.timestamp)
    if in_order and in_order[-1].is_scheduled():
        return True  # no worker has taken it yet
    # A worker claims a run, Pending, before it asks for a task.
    claims = [state.timestamp for state in in_order if state.name == "Pending"]
    return bool(claims) and created < claims[-1] - CLOCKS


def of_current_tasks(handler: Any) -> Any:
    """A handler of the observer's that doesn't hear of tasks that are replaced."""

    @retry(retry=retry_if_exception_type(httpx.TransportError), wait=wait_fixed(2))
    @functools.wraps(handler)
    async def heard(event: dict[str, Any], tags: dict[str, str]) -> None:
        run, task = tags["prefect.io/flow-run-id"], event["detail"]
        created = datetime.fromisoformat(task["createdAt"])
        async with get_client() as client:
            states = await client.read_flow_run_states(UUID(run))
        if replaced(created, states):
            get_logger("observer").info(
                "Task %s is %s, and no longer the task of flow run %s",
                *(task["taskArn"], task["lastStatus"], run),
            )
            return
        await handler(event, tags)

    return heard


ecs_observer.event_handlers["task"] = [
    each._replace(handler=of_current_tasks(each.handler))
    for each in ecs_observer.event_handlers["task"]
]

if __name__ == "__main__":
    from prefect.cli import app

    app()
