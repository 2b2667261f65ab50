"""The laptop's commands: `make demo|up|down|status|deploy`, without STACK=."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from trainyard.contract.outputs import WEBHOOK, StackOutputs, deploy_environment
from trainyard.laptop.doctor import disk_full
from trainyard.laptop.services import LABELS, left_behind
from trainyard.laptop.stack import NO_IMAGE, Stack
from trainyard.prefect.backfill_request import Backfill
from trainyard.prefect.deploy import PROBLEMS
from trainyard.tools.console import console, done, errors, fail, say, tail
from trainyard.tools.errors import StackError

_DEPLOYED = re.compile(r"Deployment '([^']+)' successfully created")
_REMOVED = re.compile(r"(?:Deployment|Schedule) ('[^']+'.*) removed: (.+)")


def run(command: Callable[[Stack], int | None]) -> int:
    """Run a command in the stack's own environment; the exit code says whether it went well.

    Ctrl-C, `kill` and a closed terminal each clean up in the same way.
    """
    stack = Stack()
    # before anything imports Prefect or MLflow, which look at it
    environment = stack.environment()
    if WEBHOOK in os.environ:  # for `register`, here; what the stack starts doesn't get it
        environment[WEBHOOK] = os.environ[WEBHOOK]
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        if (failed := command(stack) or 0) and (full := disk_full()):
            fail(full)
        return failed
    except _Stopped as stopped:
        fail("stopped: nothing is left running that this command started")
        return 128 + stopped.number
    except (StackError, OSError) as error:
        if full := disk_full(str(error)):
            raise StackError(f"{error}\n{full}") from error
        raise


def up(stack: Stack, *, image: str | None = None) -> None:
    """`image`: as Stack.up takes it."""
    start = time.monotonic()
    if stack.up(image=image):
        say(f"the stack is up after {time.monotonic() - start:.0f} s:", "bold")
        if left_behind(outputs := stack.outputs()):
            pool = outputs.work_pool.name
            say(f"deployments wait in another pool: `make deploy` brings them to {pool}", "yellow")
    else:
        say("the stack is already running:", "bold")
    stack.where_to_look()
    say("`make status` looks after it, `make down` stops it")


def down(stack: Stack, *, quiet: bool = False) -> None:
    stopped = stack.down()
    if not quiet:
        say("the stack is stopped" if stopped else "nothing is running")


def status(stack: Stack) -> int:
    found = stack.status()
    if all(health.state == "not started" for health in found):
        say("the stack isn't running: `make up` starts it")
        return 1
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("", "state", "where", "pid", "memory"):
        table.add_column(column, no_wrap=True)
    for health in found:
        running = health.running
        table.add_row(
            LABELS[health.service],
            health.state,
            running.where if running else "",
            str(running.pid) if running else "",
            f"{health.memory / 1e6:.0f} MB" if health.memory else "",
            style=None if health.state == "running" else "red",
        )
    console.print(table)
    bad = [health.service for health in found if health.state != "running"]
    for service in bad:
        say(f"{LABELS[service]}: {tail(stack.log(service))}")
    if bad:
        errors.print("`make up` starts again what is dead; `make down` stops the rest")
        return 1
    stack.show_folders()
    return 0


def register_and_deploy(stack: Stack, *, schedules: bool = False) -> None:
    """What `make deploy` does to a stack that is up."""
    outputs = stack.outputs().model_copy(update={"active_schedules": schedules})
    with console.status("telling Prefect about the stack"):
        changed = stack.register(outputs)
    done(f"{'register':<9} {changed}")
    deploy(stack, outputs)


def deploy(stack: Stack, outputs: StackOutputs) -> None:
    environment = stack.environment() | deploy_environment(outputs, stack.image or NO_IMAGE)
    environment["PREFECT_API_URL"] = outputs.prefect_api_url
    environment["COLUMNS"] = "500"  # Prefect would break its lines where ours can't be found
    with console.status("deploying"):
        result = subprocess.run(
            [sys.executable, "-m", "trainyard.prefect.deploy"],
            env=environment,
            cwd=stack.code,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    output = (result.stdout + result.stderr).strip()
    if result.returncode == PROBLEMS:
        raise StackError(f"nothing was deployed:\n{output}")
    deployed = list(dict.fromkeys(_DEPLOYED.findall(output)))
    if result.returncode or not deployed:
        raise StackError(f"`prefect deploy --all` failed:\n{output}")
    done(f"{'deployed':<9} {', '.join(deployed)}")
    for what, why in _REMOVED.findall(output):
        done(f"{'removed':<9} {what}: {why}")
    if not outputs.active_schedules:
        done(f"{'schedules':<9} at rest: `make deploy SCHEDULES=1` lets them start runs")


def model(stack: Stack, arguments: Sequence[str]) -> int:
    """Run flows/lifecycle's own command where the laptop's MLflow and Prefect are."""
    command, environment = _model_command(stack, arguments)
    return subprocess.run(command, env=environment, cwd=stack.code, check=False).returncode  # noqa: S603


def serve(stack: Stack, arguments: Sequence[str]) -> NoReturn:
    """Become flows/lifecycle's server, so that Ctrl-C and `kill` reach it, and it drains."""
    command, environment = _model_command(stack, arguments)
    # a row's trees take less than threads that wait for each other
    environment["OMP_NUM_THREADS"] = "1"
    os.chdir(stack.code)
    os.execve(command[0], command, environment)  # noqa: S606  our own command, no shell


def _model_command(stack: Stack, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    outputs = stack.outputs()
    environment = stack.environment() | {
        "PREFECT_API_URL": outputs.prefect_api_url,
        "MLFLOW_TRACKING_URI": outputs.tracking_uri,
        "TRAINYARD_ARTIFACT_STORE": outputs.artifact_store,
    }
    return [sys.executable, "-m", "flows.lifecycle", *arguments], environment


def backfill(stack: Stack, request: Backfill) -> int:
    """Run a deployment of the laptop's Prefect for many months."""
    api_url = stack.outputs().prefect_api_url
    stack.check_alive()
    # only now, because importing Prefect's client takes seconds
    from trainyard.prefect.backfill import run_backfill
    from trainyard.prefect.backfill_plan import BackfillError

    try:
        return run_backfill(api_url, request, check=stack.check_alive)
    except BackfillError as error:
        raise StackError(str(error)) from error


class _Stopped(BaseException):
    """Ctrl-C, `kill` or a closed terminal."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    raise _Stopped(number)
