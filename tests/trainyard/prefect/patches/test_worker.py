"""The worker's observer, on a real Prefect server: what it makes of ECS's messages about tasks."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Crashed, Pending, Running

import trainyard.prefect.patches.worker
from trainyard.prefect.patches.worker import ecs_observer, replaced

pytestmark = pytest.mark.server

HOUR = timedelta(hours=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run_in(client: SyncPrefectClient, *states: State[Any]) -> FlowRun:
    run = client.create_flow_run(Flow(lambda: None, name="rides"))
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)
    return client.read_flow_run(run.id)


def hear(run: FlowRun, status: str, created: datetime) -> None:
    """Hand the observer's handlers a message of ECS, as its queue does."""
    event = {
        "id": str(uuid.uuid4()),
        "detail": {
            "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/rides/1",
            "lastStatus": status,
            "createdAt": created.isoformat(),
            "containers": [{"name": "prefect", "exitCode": 137}],
        },
    }
    tags = {"prefect.io/flow-run-id": str(run.id), "prefect.io/flow-run-name": run.name}

    async def handle() -> None:
        for handler, filters in ecs_observer.event_handlers["task"]:
            matches = filters["last_status"].is_match(status)  # type: ignore[arg-type]
            if matches and filters["tags"].is_match(tags):
                await ecs_observer._run_handler(handler, event, tags)

    asyncio.run(handle())


def state_of(client: SyncPrefectClient, run: FlowRun) -> str | None:
    state = client.read_flow_run(run.id).state
    return state and state.name


def test_a_run_whose_task_stops_is_crashed(client: SyncPrefectClient) -> None:
    run = run_in(client, Pending(), Running())
    hear(run, "STOPPED", created=datetime.now(UTC))
    assert state_of(client, run) == "Crashed"


@pytest.mark.parametrize("now", [Pending, Running])
def test_a_stop_that_is_told_late_leaves_the_next_start_alone(
    client: SyncPrefectClient, now: Any
) -> None:
    first = datetime.now(UTC) - HOUR
    started_again = (Crashed(), AwaitingRetry(), Pending(), now())
    run = run_in(client, *dict.fromkeys(started_again))
    hear(run, "STOPPED", created=first)
    assert state_of(client, run) == now().name
    hear(run, "STOPPED", created=datetime.now(UTC))
    assert state_of(client, run) == "Crashed"


def test_a_start_that_is_told_late_takes_no_run_from_its_queue(client: SyncPrefectClient) -> None:
    run = run_in(client, Pending(), Running(), Crashed(), AwaitingRetry())
    hear(run, "PENDING", created=datetime.now(UTC))
    assert state_of(client, run) == "AwaitingRetry"


def test_a_task_is_a_runs_own_if_the_run_was_claimed_before_it() -> None:
    claimed, retried = Pending(timestamp=NOON), AwaitingRetry(timestamp=NOON + HOUR)
    at_work = [claimed, Running(timestamp=NOON + timedelta(minutes=2))]
    assert not replaced(NOON + timedelta(minutes=1), at_work)
    assert not replaced(NOON - timedelta(seconds=1), at_work)  # by another clock
    assert replaced(NOON - timedelta(minutes=1), at_work)
    # a flow's own retries go on in its task
    again = [*at_work, retried, Running(timestamp=NOON + HOUR, name="Retrying")]
    assert not replaced(NOON + timedelta(minutes=1), again)


def test_what_is_told_while_the_api_is_away_is_handled_when_it_is_back(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(client, Pending(), Running())
    refused = [httpx.ConnectError("refused")]

    def away_at_first() -> Any:
        if refused:
            raise refused.pop()
        return get_client()

    monkeypatch.setattr(trainyard.prefect.patches.worker, "get_client", away_at_first)
    hear(run, "STOPPED", created=datetime.now(UTC))
    assert not refused
    assert state_of(client, run) == "Crashed"


def test_a_run_that_is_not_there_is_nobodys() -> None:
    assert not replaced(NOON, [])
