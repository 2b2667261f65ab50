"""Runs the deployment `smoke/smoke` through the stack's worker, and shows how it goes."""

import asyncio
import sys
from typing import Any
from uuid import uuid4

from prefect.cli.flow_runs_watching import watch_flow_run
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import FlowRunWaitTimeout, FlowRunWatchError, ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Pending
from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

DEPLOYMENT = "smoke/smoke"
MINUTES = 10
LAST_LOGS = 50


class LogConsole(Console):
    """A console for what a run logs: Prefect takes brackets in it for markup, which may be none."""

    def render_str(self, text: str, **options: Any) -> Text:
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(text, **{**options, "markup": False})


def run_smoke(api_url: str, minutes: float = MINUTES) -> int:
    """Run it and wait for Completed; gives the exit code."""
    with temporary_settings({PREFECT_API_URL: api_url}):
        failure = asyncio.run(_run(minutes))
    if failure:
        print(failure, file=sys.stderr)
    return 1 if failure else 0


async def _run(minutes: float) -> str:
    """Why the run didn't complete; empty where it did."""
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return f"Prefect has no deployment {DEPLOYMENT}: `make deploy` makes it"
        run = await client.create_flow_run_from_deployment(
            # the client repeats a request that a busy server lost: not a second run
            deployment.id,
            idempotency_key=f"smoke {uuid4()}",
        )
        image = (deployment.job_variables or {}).get("image") or "no image"
        print(f"{DEPLOYMENT}: {run.name}, from {image}", flush=True)
        failure = await _watch(client, run, minutes)
        # Cloud has shown them already; a server of our own doesn't stream logs.
        for line in await _last_lines(client, run):
            print(f"  {line}", flush=True)
        if not failure:
            print("Completed", flush=True)
        return failure


async def _watch(client: PrefectClient, run: FlowRun, minutes: float) -> str:
    """Show a run to its end; gives why it didn't complete. Past its time it is cancelled."""
    console = LogConsole(highlight=False, emoji=False, soft_wrap=True)
    try:
        ended = await watch_flow_run(run.id, console, timeout=round(minutes * 60))
    except (FlowRunWaitTimeout, FlowRunWatchError) as error:
        state = (await client.read_flow_run(run.id)).state or Pending()
        await client.set_flow_run_state(run.id, Cancelling())
        when = f"after {minutes:g} minutes"
        if isinstance(error, FlowRunWatchError):
            when = f"and can't be watched ({error})"
        hint = "" if state.is_running() else ": no worker took it, see its log"
        return f"the smoke run is {_described(state)} {when}, and was cancelled{hint}"
    state = ended.state or Pending()
    return "" if state.is_completed() else f"the smoke run ended as {_described(state)}"


async def _last_lines(client: PrefectClient, run: FlowRun) -> list[str]:
    await asyncio.sleep(2)  # a run sends its last lines after its last state
    logs = await client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])),
        limit=LAST_LOGS,
        sort=LogSort.TIMESTAMP_DESC,
    )
    return [line for log in reversed(logs) for line in log.message.splitlines()]


def _described(state: State) -> str:
    return f"{state.name}: {state.message}" if state.message else str(state.name)
