"""`python -m infra.laptop`: what make's up, down, status, deploy and demo call."""

import argparse
import os
import signal
import sys
import time
from types import FrameType

from infra.laptop.console import console, errors, fail, say, tail
from infra.laptop.stack import LABELS, Stack, StackError
from infra.outputs import WEBHOOK


def main() -> int:
    """Run one command; the exit code says whether it went well."""
    arguments = _parser().parse_args()
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
        return _run(stack, arguments)
    except _Stopped as stopped:
        fail("stopped: nothing is left running that this command started")
        return 128 + stopped.number
    except (StackError, OSError) as error:
        fail(str(error))
        return 1


def _run(stack: Stack, arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            start = time.monotonic()
            if stack.up():
                say(f"the stack is up after {time.monotonic() - start:.0f} s:", "bold")
            else:
                say("the stack is already running:", "bold")
            stack.where_to_look()
            say("`make status` looks after it, `make down` stops it")
        case "down":
            stopped = stack.down()
            if not arguments.quiet:
                say("the stack is stopped" if stopped else "nothing is running")
        case "status":
            return _status(stack)
        case "deploy":
            from infra.laptop.deploy import register_and_deploy

            register_and_deploy(stack)
        case "demo":
            from infra.laptop.demo import demo

            return demo(stack, arguments)
    return 0


def _status(stack: Stack) -> int:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.laptop", description="The laptop stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it: Prefect, MLflow, the artifact folder, a worker")
    down = commands.add_parser("down", help="stop what `up` started")
    down.add_argument("--quiet", action="store_true", help="print nothing")
    commands.add_parser("status", help="what runs, and where to look")
    commands.add_parser("deploy", help="register, then `prefect deploy --all`")
    demo = commands.add_parser("demo", help="train a model end to end")
    demo.add_argument(
        "--data", default="synthetic", help="synthetic, tlc, a folder, s3:// or https://"
    )
    demo.add_argument("--train", metavar="YYYY-MM", help="the month to train on")
    demo.add_argument("--valid", metavar="YYYY-MM", help="the month to validate on")
    demo.add_argument("--trials", type=int, metavar="N", help="how many trials to search")
    demo.add_argument("--keep", action="store_true", help="leave the stack up")
    return parser


class _Stopped(BaseException):
    """Ctrl-C, `kill` or a closed terminal: each cleans up in the same way."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    raise _Stopped(number)


if __name__ == "__main__":
    sys.exit(main())
