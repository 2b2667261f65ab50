"""`make rehearse`: the cloud path on an emulator, from nothing to a trained model and back.

Each step prints its time and what it found; the first promise that is broken ends the rehearsal.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from rich.console import Console

from trainyard.aws import stack as operations
from trainyard.aws.preview import preview
from trainyard.contract.naming import REHEARSAL, Names
from trainyard.delivery import images
from trainyard.rehearsal import iam_usage as rights
from trainyard.rehearsal.drift import (
    MONITOR,
    SCORE,
    SLOWER,
    put_changed_month,
    trainings,
    triggered,
)
from trainyard.rehearsal.emulator_session import RehearsalError, missing, wait_until
from trainyard.rehearsal.served import serve_meanwhile
from trainyard.rehearsal.stack import DEPLOYMENT, MODEL, PARAMETERS, Mode, Rehearsal, pool_of
from trainyard.rehearsal.target import rehearsal as session_of_this_clone
from trainyard.tools.errors import StackError

LAST_LINES = 25  # of its log, at a failure
Found = TypeVar("Found")


def check_unchanged(rehearsal: Rehearsal) -> str:
    """A second `make up` changes nothing."""
    foreseen = preview(rehearsal.pulumi)
    if foreseen.failed:
        raise RehearsalError("\n".join(foreseen.problems))
    if changed := {each.name: each.operation for each in foreseen.changes}:
        raise RehearsalError(f"a second `make up` would change {changed}")
    rehearsal.up()
    last = rehearsal.pulumi.api.info()
    done: dict[Any, int] = dict(last.resource_changes or {}) if last else {}
    if done.keys() != {"same"}:
        raise RehearsalError(f"a second `make up` was foreseen to change nothing, and did {done}")
    return f"{done['same']} resources unchanged"


def check_services(rehearsal: Rehearsal) -> str:
    """What `make doctor` asks of Prefect and MLflow; and MLflow's version, by its password."""
    outputs = rehearsal.pulumi.outputs()
    operations.run_deployer(rehearsal.pulumi, outputs, rehearsal.connect(outputs), "--doctor")
    # On a machine that stood still for a minute, ECS replaces what it took for unhealthy.
    version = wait_until(
        lambda: rehearsal.mlflow("/version"),
        120,
        lambda: "MLflow isn't reached",
        httpx.ConnectError,
    ).raise_for_status()
    pool = rehearsal.outputs.work_pool.name
    return f"worker online, MLflow {version.text}, pool {pool} as registered"


def completed_run(
    rehearsal: Rehearsal, client: SyncPrefectClient, deployment: str = DEPLOYMENT, **given: object
) -> FlowRun:
    """A run, as a task on the emulator; of the training without another deployment."""
    parameters = PARAMETERS | given if deployment == DEPLOYMENT else given
    found = client.read_deployment_by_name(deployment).id
    return completed(
        rehearsal, client, client.create_flow_run_from_deployment(found, parameters=parameters)
    )


def completed(rehearsal: Rehearsal, client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    run = rehearsal.wait_for(client, run)
    if run.state_type is not StateType.COMPLETED:
        raise RehearsalError(f"the run {run.name} ended as {run.state}")
    return run


def train(rehearsal: Rehearsal) -> str:
    """A training run; all that it leaves is where it belongs."""
    with rehearsal.prefect() as client:
        run = completed_run(rehearsal, client)
        first = min(t.start_time for t in rehearsal.task_runs(client, run) if t.start_time)
        waited = (first - (run.created or first)).total_seconds()
    champion = rehearsal.champion()
    version, tags = champion["version"], {tag["key"]: tag["value"] for tag in champion["tags"]}
    made_from = json.loads(tags["trainyard.lineage"])
    models = [key for key in rehearsal.keys("mlflow/") if key.endswith("MLmodel")]
    # And back: how a scoring flow gets the model.
    stored = models[0].removeprefix("mlflow/") if models else ""
    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    rehearsal.mlflow(artifacts, path=stored.rpartition("/")[0]).raise_for_status()
    rehearsal.mlflow(f"{artifacts}/{stored}").raise_for_status()
    results = rehearsal.keys("flows/results/")
    logs = rehearsal.aws("logs").filter_log_events(
        logGroupName=pool_of(rehearsal.outputs).log_group, filterPattern=f'"{run.name}"', limit=1
    )["events"]
    for what, found in (
        ("model in S3", models),
        ("result", results),
        ("log line", logs),
        ("image in its model's record", made_from["image"]),
    ):
        if not found:
            raise RehearsalError(f"the run completed, but left no {what}")
    return f"first task after {waited:.0f} s, champion version {version}, {len(results)} results"


def keep_the_better(rehearsal: Rehearsal) -> str:
    """A run that is no better is kept; a person promotes it all the same, and takes it back."""
    model = partial(operations.model, rehearsal.pulumi, connect=rehearsal.connect)

    def require(version: str, after: str) -> None:
        if (found := str(rehearsal.champion()["version"])) != version:
            raise RehearsalError(f"version {found} is champion after {after}, and not {version}")

    before = str(rehearsal.champion()["version"])
    with rehearsal.prefect() as client:
        completed_run(rehearsal, client, num_trials=1)  # the first of the trials before
    require(before, "a run that is no better")
    worse = str(int(before) + 1)
    model(["promote", f"{MODEL}/{worse}", "--force=rehearsed"])
    require(worse, "`model promote --force`")
    model(["rollback", MODEL, "--reason=rehearsed"])
    require(before, "`model rollback`")
    model(["list", MODEL])
    return f"version {worse} kept, promoted by force and taken back"


def train_after_drift(rehearsal: Rehearsal) -> str:
    """A month is scored; it changes, and the run that finds it starts a training."""
    month = f"{datetime.now(UTC):%Y-%m}"
    with rehearsal.prefect() as client:
        completed_run(rehearsal, client, SCORE, month=month)
        data = put_changed_month(rehearsal, month, SLOWER)
        before = trainings(client)
        for deployment in (SCORE, MONITOR):
            completed_run(rehearsal, client, deployment, month=month, data=data)
        training = completed(rehearsal, client, triggered(client, before))
    champion = rehearsal.champion()
    made_from = {tag["key"]: tag["value"] for tag in champion["tags"]}["trainyard.lineage"]
    if json.loads(made_from)["flow_run"] != str(training.id):
        raise RehearsalError(f"version {champion['version']} is champion, not {training.name}'s")
    page, prefix = f"{month}.html", f"flows/monitoring/{MODEL}/"
    if f"{prefix}{page}" not in rehearsal.keys(prefix):
        raise RehearsalError(f"the month has no page {prefix}{page}")
    return f"champion version {champion['version']}, of {training.name}"


def check_rights(rehearsal: Rehearsal) -> str:
    """Nothing was denied to the stack's roles, and they may nothing that nobody used."""
    granted = rights.grants(rehearsal.session.root, f"{Names(REHEARSAL).prefix}-")
    if found := rights.problems(granted, rights.decisions(rehearsal.session.log())):
        raise RehearsalError("\n".join(found))
    return f"{sum(map(len, granted.values()))} rights of {len(granted)} roles"


def step(console: Console, title: str, do: Callable[[], Found]) -> Found:
    """Do a step, and print its line of the table: its time, and what it found."""
    started, mark, found = time.monotonic(), "[red]✗[/]", None
    try:
        with console.status(title):
            found = do()
            mark = "[green]✓[/]"
    finally:
        shown = ", ".join(found) if isinstance(found, dict) else found or ""
        took = f"{time.monotonic() - started:6.0f} s"
        console.print(f"{mark} {title:<28} {took}  {shown}", soft_wrap=True)
    return found


def bring_up(rehearsal: Rehearsal, console: Console) -> None:
    """From nothing to a stack with its deployments; what is there already is left alone."""
    step(console, "emulator", rehearsal.session.start)
    built = step(console, "images", images.build)
    step(console, "the account's stack", lambda: rehearsal.open(**built))
    step(console, "make up", rehearsal.up)
    step(console, "make deploy", rehearsal.deploy)


def rehearse(rehearsal: Rehearsal, console: Console, *, keep: bool = False) -> None:
    """All steps, in order, from nothing; with `keep` the stack stays up."""
    rehearsal.session.stop()
    bring_up(rehearsal, console)
    step(console, "make up, again", lambda: check_unchanged(rehearsal))
    step(console, "what runs", lambda: check_services(rehearsal))
    step(console, "a training run", lambda: train(rehearsal))
    step(
        console,
        "a run that is no better",
        lambda: serve_meanwhile(rehearsal, lambda: keep_the_better(rehearsal)),
    )
    step(console, "a month that drifts", lambda: train_after_drift(rehearsal))
    step(console, "rights", lambda: check_rights(rehearsal))
    if not keep:
        step(console, "make down", rehearsal.destroy)


def perform(name: str, mode: Mode, act: Callable[[Rehearsal, Console], None], *, keep: bool) -> int:
    """Open a rehearsal for `act`, end it after, and say what went wrong; gives the exit code."""
    console = Console(file=sys.stdout, highlight=False)
    if lacking := missing():
        raise StackError(f"a rehearsal needs more: {lacking}")
    session = session_of_this_clone()
    session.home.mkdir(parents=True, exist_ok=True)
    path = session.home / f"{name}.log"
    done = ended = False
    with path.open("w", buffering=1) as log, ended_as_by_ctrl_c():
        rehearsal = Rehearsal(session, mode, log)
        try:
            with reported(console, path), redirect_stdout(log):
                act(rehearsal, console)
                done = True
        finally:
            with reported(console):
                if not keep:
                    rehearsal.close()
                elif session.runs():
                    left = "the emulator and what is in it are up: `make down STACK=rehearsal`"
                    console.print(f"{left} ends them")
                ended = True
    return 0 if done and ended else 1


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """`kill`, and a terminal that closes, end what runs within as Ctrl-C does: not at once."""

    def end(*_: object) -> None:
        for each in before:  # once: make passes on what it gets, and so does who ends a group
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = {s: h for s in signals if (h := signal.getsignal(s)) is not signal.SIG_IGN}  # nohup's
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def reported(console: Console, log: Path | None = None) -> Iterator[None]:
    """Say what goes wrong within, after the last lines of the log, and go on after it."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped")
    except (StackError, ClientError, httpx.HTTPError) as error:
        if log and type(error) is StackError and (said := log.read_text()):
            # Pulumi or a task failed, and has said why there.
            lines = [*said.splitlines()[-LAST_LINES:], f"(the last lines of {log})"]
            console.print("\n".join(lines), markup=False, emoji=False, soft_wrap=True)
        console.print(str(error), markup=False, emoji=False, soft_wrap=True)


def rehearse_command(prefect: Mode, *, keep: bool) -> int:
    if keep and prefect == "cloud":
        raise StackError("KEEP=1: what stands in for Prefect Cloud ends with this command")
    return perform("rehearse", prefect, partial(rehearse, keep=keep), keep=keep)
