"""Runs the deployment `smoke/smoke` through the stack's worker, and says how it went as it goes."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Pending

DEPLOYMENT = "smoke/smoke"
MINUTES = 10
LAST_LINES = 20
PAGE = 200  # logs that the server gives at once


def run_smoke(api_url: str, minutes: float = MINUTES) -> int:
    """Run it and wait for Completed; gives the exit code."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            print(
                f"Prefect has no deployment {DEPLOYMENT}: `make deploy` makes it", file=sys.stderr
            )
            return 1
        run = client.create_flow_run_from_deployment(
            # the client repeats a request that a busy server lost: not a second run
            deployment.id,
            idempotency_key=f"smoke {uuid4()}",
        )
        image = (deployment.job_variables or {}).get("image") or "no image"
        print(f"{DEPLOYMENT}: {run.name}, from {image}", flush=True)
        return _follow(client, run.id, minutes)


def _follow(client: SyncPrefectClient, run_id: UUID, minutes: float) -> int:
    """Say a run's states and log lines until its end."""
    logs, last = _logs(client, run_id), deque[str](maxlen=LAST_LINES)
    deadline, shown = time.monotonic() + minutes * 60, ""
    while True:
        state = client.read_flow_run(run_id).state or Pending()
        if state.is_final():
            time.sleep(5)  # its last lines are on their way
        for line in next(logs):
            last.append(line)
            print(f"  {line}", flush=True)
        if state.name != shown:
            shown = str(state.name)
            print(shown, flush=True)
        if state.is_completed():
            return 0
        if state.is_final():
            return _failed(f"ended as {_said(state)}", last)
        if time.monotonic() > deadline:
            client.set_flow_run_state(run_id, Cancelling())
            hint = "" if state.is_running() else ": no worker took it, see its log"
            return _failed(
                f"is {_said(state)} after {minutes:g} minutes, and was cancelled{hint}", last
            )
        time.sleep(1)


def _failed(what: str, last: deque[str]) -> int:
    lines = "".join(f"\n  {line}" for line in last)
    print(f"the smoke run {what}{lines and f'; its last lines:{lines}'}", file=sys.stderr)
    return 1


def _said(state: State) -> str:
    return f"{state.name}: {state.message}" if state.message else str(state.name)


def _logs(client: SyncPrefectClient, run_id: UUID) -> Iterator[list[str]]:
    """A run's log lines, each time those that weren't there yet."""
    seen = set[UUID]()
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    while True:
        found = client.read_logs(of_run, limit=PAGE, sort=LogSort.TIMESTAMP_ASC)
        new = [each for each in found if each.id not in seen]
        seen.update(each.id for each in new)
        yield [line for each in new for line in each.message.splitlines()]
