"""`make demo`: one run through a deployment and the worker, watched until it ends."""

import logging
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from rich.markup import escape
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from trainyard.laptop.parameters import DEMO, Demo
from trainyard.laptop.processes import cleaning_up
from trainyard.laptop.services import LABELS
from trainyard.laptop.stack import Stack
from trainyard.tools.console import console, done, fail, say
from trainyard.tools.errors import StackError
from trainyard.tools.waiting import wait_until

# Prefect's types of the artifacts that a flow leaves for people: the newest of each is shown.
PROGRESS, REPORT = "progress", "markdown"
PATIENCE = 15.0
LOG_LINES = 30


def demo(stack: Stack, wanted: Demo, *, keep: bool, image: str | None = None) -> int:
    """Stack up (if it isn't), deploy, run, report, and down again what this brought up.

    Args:
        wanted: the deployment, and its parameters.
        keep: leave the stack up.
        image: as Stack.up takes it.
    """
    from trainyard.laptop.commands import deploy, register_and_deploy

    if image or (image is None and stack.image):
        for name, value in wanted.parameters.items():
            if isinstance(value, str) and Path(value).is_absolute():
                raise StackError(
                    f"{name}={value}: a container sees no folder of this machine; name data that "
                    "it can fetch, or let runs be processes (`make down`, and no POOL=docker)"
                )
    start = time.monotonic()
    started = stack.up(meanwhile=lambda outputs: deploy(stack, outputs), image=image)
    keep = keep or len(started) < len(LABELS)
    try:
        if not started:
            register_and_deploy(stack)
        completed = _run(stack, wanted, keep)
    finally:
        if not keep:
            with cleaning_up():
                stack.down()
    say(f"{'done' if completed else 'failed'} in {time.monotonic() - start:.0f} s", "bold")
    if keep:
        stack.where_to_look()
        say("`make down` stops the stack")
    else:
        say("the stack is stopped again; `make up` brings it back with this run in it")
    return 0 if completed else 1


def _run(stack: Stack, wanted: Demo, keep: bool) -> bool:
    # only now, because importing Prefect's client takes seconds
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api = stack.outputs().prefect_api_url
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        try:
            run = client.create_flow_run_from_deployment(
                _deployed(client, wanted),
                parameters=wanted.parameters,
                # the client repeats a request that a busy server lost: not a second run
                idempotency_key=f"demo {uuid4()}",
            )
        except PrefectHTTPStatusError as error:
            raise StackError(
                f"Prefect refuses to run {wanted.name} with {wanted.parameters}: "
                f"{error.response.text}"
            ) from error
        watched = _Run(client, run.id, stack)
        done(f"{'run':<9} {run.name}  {watched.url}")
        try:
            completed = watched.watch()
        except BaseException as error:
            with cleaning_up():
                # without its worker a run can't end
                watched.cancel(wait=keep and not isinstance(error, StackError))
            raise
        if completed:
            watched.show_report()
        else:
            watched.explain()
        return completed


def _deployed(client: Any, wanted: Demo) -> UUID:
    """The id of the deployment that prefect.yaml calls so: its flow's own name is in its code."""
    from prefect.client.schemas.filters import DeploymentFilter

    named = DeploymentFilter.model_validate(
        {"name": {"any_": [wanted.name]}, "tags": {"all_": [DEMO]}}
    )
    for found in client.read_deployments(deployment_filter=named):
        if found.entrypoint == wanted.entrypoint:
            return UUID(str(found.id))
    raise StackError(f"Prefect has no deployment {wanted.name!r}: `make deploy` makes it")


class _Run:
    """One flow run, as a person at a terminal sees it."""

    def __init__(self, client: Any, run_id: UUID, stack: Stack) -> None:
        self._client = client
        self._id = run_id
        self._stack = stack
        self._shown: set[UUID] = set()
        self._progress = ""
        self._progress_said = time.monotonic()
        self.url = f"{stack.outputs().prefect_api_url.removesuffix('/api')}/runs/flow-run/{run_id}"

    def watch(self) -> bool:
        """Print each stage as it ends, until the run has; whether it completed."""
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        ended = 0.0

        def look() -> Any:
            """The run's last state, once all that belongs to it is shown."""
            nonlocal ended
            self._stack.check_alive()
            over = time.monotonic() - ended if ended else 0.0
            late = over > PATIENCE
            state = self._client.read_flow_run(self._id).state
            progress = self._show_progress()
            going = self._show_stages(all_that_ended=late)
            now = ", ".join(going) or ("running" if state.is_running() else state.name)
            status.update(escape(f"{now}: {progress}" if progress else now))
            if not state.is_final():
                return None
            ended = ended or time.monotonic()
            # the server hears of a task's start and end a moment after them
            return state if late or (over > 2 and not going) else None

        patient = Retrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            stop=stop_after_delay(PATIENCE),
            wait=wait_fixed(0.5),
            reraise=True,
        )
        with (
            # while the client tried again by itself, nobody would see that the server has died
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            console.status("waiting for the worker") as status,
        ):
            try:
                state = wait_until(bool, lambda: patient(look), seconds=inf)
            except httpx.HTTPError as error:
                raise StackError(f"Prefect answers no more: {error!r}") from error
        return bool(state.is_completed())

    def cancel(self, wait: bool) -> None:
        """Don't leave the run to go on unseen; `wait` until it has ended."""
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
        from prefect.states import Cancelling

        with suppress(httpx.HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            self._client.set_flow_run_state(self._id, Cancelling(message="the demo was stopped"))
            if wait:
                wait_until(
                    lambda run: run.state.is_final(),
                    lambda: self._client.read_flow_run(self._id),
                    seconds=PATIENCE,
                )

    def show_report(self) -> None:
        report = self._artifact(REPORT)
        if report is None:
            say(f"the run left no report; look at {self.url}")
        elif console.is_terminal:
            from rich.markdown import Markdown

            console.print(Markdown(str(report.data)))
        else:
            say(str(report.data))

    def explain(self) -> None:
        state = self._client.read_flow_run(self._id).state
        for line in self._last_errors():
            say(f"  │ {line}")
        fail(f"the run ended as {state.name}: {state.message or 'without a message'}")
        say(f"  the run    {self.url}")
        say(f"  its log    {self._stack.log('worker')}")

    def _last_errors(self) -> list[str]:
        from prefect.client.schemas.filters import LogFilter
        from prefect.client.schemas.sorting import LogSort

        wanted = LogFilter.model_validate(
            {"flow_run_id": {"any_": [self._id]}, "level": {"ge_": logging.ERROR}}
        )
        logs = wait_until(
            bool,  # a run sends its last lines after its last state
            lambda: self._client.read_logs(wanted, limit=10, sort=LogSort.TIMESTAMP_DESC),
            seconds=PATIENCE,
        )
        return "\n".join(log.message for log in reversed(logs)).splitlines()[-LOG_LINES:]

    def _show_stages(self, all_that_ended: bool) -> list[str]:
        """Print the stages that ended since the last look, in their order; gives those that run."""
        from prefect.client.schemas.filters import FlowRunFilter

        this_run = FlowRunFilter.model_validate({"id": {"any_": [self._id]}})
        stages = self._client.read_task_runs(flow_run_filter=this_run)
        going: list[str] = []
        for stage in sorted(stages, key=lambda stage: stage.start_time or stage.created):
            # Prefect makes names unique by this; for a person the task's own name is enough
            label = stage.name.removesuffix(f"-{stage.dynamic_key[:3]}")
            if stage.state is None or not stage.state.is_final():
                going.append(label)
            elif stage.id not in self._shown and (all_that_ended or not going):
                self._shown.add(stage.id)
                text = f"{'stage':<9} {label}  {stage.total_run_time.total_seconds():.1f} s"
                if stage.state.is_completed():
                    done(text)
                else:
                    fail(f"{text}  {stage.state.name}")
        return going

    def _show_progress(self) -> str:
        artifact = self._artifact(PROGRESS)
        if artifact is None or artifact.data == 100:
            return ""
        progress: str = artifact.description or ""
        # a terminal has it in its status line; a log gets a line now and then
        due = time.monotonic() - self._progress_said > 5
        if not console.is_terminal and progress != self._progress and due:
            self._progress, self._progress_said = progress, time.monotonic()
            say(f"  {progress}")
        return progress

    def _artifact(self, kind: str) -> Any:
        from prefect.client.schemas.filters import ArtifactFilter
        from prefect.client.schemas.sorting import ArtifactSort

        wanted = ArtifactFilter.model_validate(
            {"type": {"any_": [kind]}, "flow_run_id": {"any_": [self._id]}}
        )
        found = self._client.read_artifacts(
            artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1
        )
        return found[0] if found else None
