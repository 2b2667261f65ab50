"""Runs a deployment once for each month of a range, a few at a time; months that are done stay.

A run is created when there is room for it and not before, so a backfill that is stopped leaves
nothing in Prefect's queue.
"""

import hashlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Pending
from prefect.types._datetime import now
from prefect.utilities.urls import url_for
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from trainyard.prefect.automations import RECOVERING, SETTLE
from trainyard.prefect.backfill_plan import BackfillError, make_plan, pages
from trainyard.prefect.backfill_request import Backfill

TAG = "backfill"
# Seconds from one look at the runs to the next.
POLL = 2.0
# How long Prefect may be away: a server that is replaced takes a minute or two.
PATIENCE = 180.0
# How long a crashed run may take to be scheduled again (trainyard/prefect/automations.py).
RECOVERY = SETTLE + 30
# Of the deployment's runs, those that have one of its places.
AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
USUAL = ("Scheduled", "Pending", "Running", "Submitting", "InfrastructurePending")
AGAIN = "The same command goes on from here."

T = TypeVar("T")


@dataclass
class Row:
    """A month of the table."""

    state: str = "not begun"
    run: FlowRun | None = None
    why: str = ""
    """Why it hasn't completed, where its run is over."""
    crashed: float = 0.0
    """Since when the run is, by our own clock; it may start again."""

    def cells(self, month: str) -> tuple[str, str, str, str]:
        seconds = ""
        if self.run and self.state not in ("skipped", "under way"):
            seconds = f"{self.run.total_run_time.total_seconds():.0f}"
        name = self.run.name if self.run else ""
        return month, self.state, seconds, f"{name}  {self.why or _page(self.run)}".strip()


def run_backfill(
    api_url: str,
    request: Backfill,
    *,
    check: Callable[[], None] = lambda: None,
    poll: float = POLL,
    recovery: float = RECOVERY,
) -> int:
    """Run every month that isn't there; gives the exit code.

    Ctrl-C, `kill` and a closed terminal leave the runs under way, and no other is begun.

    Args:
        api_url: the Prefect that has the deployment.
        check: called at each look; raises where waiting on makes no sense.
        poll: seconds between two looks.
        recovery: seconds that a crashed run may take to be scheduled again.

    Raises:
        BackfillError: what was asked for can't be run (all that is wrong), or Prefect answers no
            more.
    """
    settings = {PREFECT_API_URL: api_url, PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(settings),
        get_client(sync_client=True) as client,
        _signals_noted() as stopped,
    ):
        work = _Work(client, stopped, recovery)
        try:
            work.prepare(request)
            while work.unfinished and not stopped:
                check()
                work.look()
                work.begin()
                if work.unfinished and not stopped:
                    time.sleep(poll)
        except (httpx.HTTPError, PrefectException) as error:
            if not stopped:
                raise BackfillError(_explained(error)) from error
        finally:
            work.show()
    if stopped and work.unfinished:
        going = [row.run.name for row in work.rows.values() if row.state == "under way" and row.run]
        left = f"; {_counted(going)} under way: {', '.join(going)}" if going else ""
        print(f"stopped: nothing more is begun{left}. {AGAIN}", flush=True)
        return 128 + stopped[0]
    return 1 if any(row.why for row in work.rows.values()) else 0


class _Work:
    """The months of a backfill, on their way."""

    def __init__(self, client: SyncPrefectClient, stopped: Collection[int], recovery: float):
        self.rows: dict[str, Row] = {}
        self._client, self._stopped, self._recovery = client, stopped, recovery
        self._keys: dict[str, str] = {}
        self._waits_for = ""

    @property
    def unfinished(self) -> bool:
        return any(row.state in ("not begun", "under way") for row in self.rows.values())

    def prepare(self, request: Backfill) -> None:
        """Find out what has to run: what has completed is skipped, what is under way waited for."""
        self._plan = plan = make_plan(self._client, request, self._ask)
        why = ", the deployment's limit in prefect.yaml" * (plan.parallel < request.parallel)
        print(
            f"{plan.name}: {_counted(plan.months, 'month')}, {plan.parallel} at a time{why}",
            flush=True,
        )
        wanted = {_text(plan.parameters(month)): month for month in plan.months}
        there: dict[str, list[FlowRun]] = {month: [] for month in plan.months}
        for run in self._runs({"deployment_id": {"any_": [plan.deployment.id]}}):
            if month := wanted.get(_text(run.parameters)):
                there[month].append(run)
        for month, runs in there.items():
            self.rows[month] = self._row(month, runs, again=request.again)

    def _row(self, month: str, runs: list[FlowRun], *, again: bool) -> Row:
        done = [run for run in runs if _state(run).is_completed()]
        if going := [run for run in runs if _under_way(run)]:
            _say(month, f"under way already: {_named(going[0])}")
            return Row("under way", going[0])
        if done and not again:
            _say(month, f"skipped: it has completed as {_named(done[0])}")
            return Row("skipped", done[0])
        # The same request sent twice, or by two backfills at once, is one run; after its end there
        # may be another one.
        last = max(runs, key=lambda run: str(run.end_time or run.created), default=None)
        digest = hashlib.sha256(_text(self._plan.parameters(month)).encode()).hexdigest()
        after = last.id if last else "none"
        self._keys[month] = f"backfill {self._plan.deployment.id} {digest} after {after}"
        return Row()

    def look(self) -> None:
        """Note what has become of the runs under way."""
        going = {month: row.run for month, row in self.rows.items() if row.state == "under way"}
        ids = [run.id for run in going.values() if run]
        found = {run.id: run for run in self._runs({"id": {"any_": ids}})} if ids else {}
        for month, before in going.items():
            row, run = self.rows[month], found.get(before.id) if before else None
            if run is None:
                row.state, row.why = "deleted", "somebody has deleted the run"
                _say(month, row.state)
                continue
            state, row.run = _state(run), run
            if self._is_over(row, state):
                row.state = state.name or "Unknown"
                row.why = "" if state.is_completed() else _first_line(state)
                seconds = run.total_run_time.total_seconds()
                _say(month, f"{row.state}  {seconds:.0f} s  {row.why}".rstrip())
            elif before and state.name != _state(before).name and state.name not in USUAL:
                _say(month, f"{state.name}: {_first_line(state)}")

    def _is_over(self, row: Row, state: State[Any]) -> bool:
        if not state.is_crashed():
            row.crashed = 0.0
            return state.is_final()
        row.crashed = row.crashed or time.monotonic()
        return time.monotonic() - row.crashed >= self._recovery

    def begin(self) -> None:
        """Create runs for as many months as there is room for."""
        todo = [month for month, row in self.rows.items() if row.state == "not begun"]
        for month in todo[: self._room() if todo else 0]:
            if self._stopped:
                return
            run = self._ask(
                self._client.create_flow_run_from_deployment,
                self._plan.deployment.id,
                parameters=self._plan.months[month],
                tags=[TAG],
                idempotency_key=self._keys[month],
            )
            self.rows[month] = Row("under way", run)
            _say(month, f"begun: {_named(run)}")

    def _room(self) -> int:
        """How many runs may begin; of a limited deployment others' runs have places, too."""
        ours = {row.run.id for row in self.rows.values() if row.state == "under way" and row.run}
        room = self._plan.parallel - len(ours)
        if room <= 0 or self._plan.limit is None:
            return max(room, 0)
        at_work = {
            "deployment_id": {"any_": [self._plan.deployment.id]},
            "state": {"type": {"any_": AT_WORK}},
        }
        others = [run for run in self._runs(at_work) if run.id not in ours]
        room = min(room, self._plan.limit - len(ours) - len(others))
        waits_for = ", ".join(run.name for run in others) if room <= 0 and not ours else ""
        if waits_for and waits_for != self._waits_for:
            print(f"waiting: the deployment's place is taken by {waits_for}", flush=True)
        self._waits_for = waits_for
        return max(room, 0)

    def _runs(self, wanted: dict[str, Any]) -> Iterator[FlowRun]:
        only = FlowRunFilter.model_validate(wanted)
        read = self._client.read_flow_runs
        return pages(self._ask, read, flow_run_filter=only, sort=FlowRunSort.ID_DESC)

    def _ask(self, call: Callable[..., T], *given: Any, **named: Any) -> T:
        """Call the client; where Prefect is away, again until its time is up or we are stopped."""
        patient = stop_after_delay(PATIENCE)
        return Retrying(
            retry=retry_if_exception(_passes),
            stop=lambda state: bool(self._stopped) or patient(state),
            wait=wait_fixed(POLL),
            before_sleep=_say_that_prefect_is_away,
            reraise=True,
        )(call, *given, **named)

    def show(self) -> None:
        """Print the table, and how many months are in which state."""
        if not self.rows:
            return
        cells = [("month", "state", "seconds", "run")]
        cells += [row.cells(month) for month, row in self.rows.items()]
        wide = max(len(state) for _, state, _, _ in cells)
        print()
        for month, state, seconds, run in cells:
            print(f"{month:<7}  {state:<{wide}}  {seconds:>7}  {run}".rstrip())
        states = Counter(row.state for row in self.rows.values())
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        print(f"{_counted(self.rows, 'month')}: {counts}", flush=True)


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Ctrl-C, `kill` and a closed terminal, as a list of their numbers: nothing is cut short."""
    noted: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, lambda number, _: noted.append(number)) for each in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _passes(error: BaseException) -> bool:
    """Whether it is Prefect that is away, and the request may be sent again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _say_that_prefect_is_away(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        print(f"Prefect doesn't answer; it is asked again for {PATIENCE:.0f} s", flush=True)


def _explained(error: Exception) -> str:
    cause = error.http_exc if isinstance(error, ObjectNotFound) else error
    if isinstance(cause, httpx.HTTPStatusError) and not _passes(cause):
        return f"Prefect refuses ({cause.response.status_code}): {cause.response.text}"
    return f"Prefect answers no more: {error!r}. Runs under way go on. {AGAIN}"


def _state(run: FlowRun) -> State[Any]:
    return run.state or Pending()


def _under_way(run: FlowRun) -> bool:
    """Whether it ends by itself, soon: what somebody has scheduled for later doesn't."""
    state, due = _state(run), run.next_scheduled_start_time
    if state.name == RECOVERING:
        return True
    later = due is not None and due > now("UTC") + timedelta(minutes=1)
    return not state.is_final() and not (state.name == "Scheduled" and later)


def _text(parameters: dict[str, Any]) -> str:
    """Parameters as they are compared: 1 isn't true."""
    return json.dumps(parameters, sort_keys=True)


def _first_line(state: State[Any]) -> str:
    first = next(iter((state.message or "").strip().splitlines()), "without a message")
    return first.removeprefix("Flow run encountered an exception: ")


def _page(run: FlowRun | None) -> str:
    """Where the run is shown; a private server's pages have another address in `make ui`."""
    url = url_for("flow-run", run.id) if run else None
    host = (httpx.URL(url).host if url else "") or ""
    return "" if host.endswith(".internal") else url or ""


def _named(run: FlowRun) -> str:
    return f"{run.name}  {_page(run)}".rstrip()


def _counted(things: Collection[object], what: str = "run") -> str:
    return f"{len(things)} {what}{'s' * (len(things) != 1)}"


def _say(month: str, text: str) -> None:
    print(f"{month}  {text}", flush=True)
