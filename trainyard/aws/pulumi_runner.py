"""What runs `pulumi` for the Automation API, and for a person who answers its question.

The API's own runner would leave it behind at Ctrl-C, with a locked stack and resources that its
state doesn't know.
"""

import codecs
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import IO, Any

from pulumi.automation import (
    CommandResult,
    ConcurrentUpdateError,
    InvalidVersionError,
    LocalWorkspace,
    PulumiCommand,
    StackNotFoundError,
)
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from trainyard.aws.pulumi_cli import HOW_TO_INSTALL, OLDEST_PULUMI, Pulumi, typed
from trainyard.tools.errors import StackError

Show = Callable[[str], Any]
# What pulumi says where neither a file nor the shell nor a login names a backend.
NO_BACKEND = "PULUMI_ACCESS_TOKEN must be set"


class Workspace(LocalWorkspace):
    """A stack's project. None is ever selected in it: every call names the stack."""

    def __init__(self, pulumi: Pulumi):
        self.runner = Runner(pulumi)
        super().__init__(
            work_dir=str(pulumi.folder), env_vars=pulumi.variables, pulumi_command=self.runner
        )

    def select_stack(self, stack_name: str) -> None:
        """Leave the one that the user has selected."""

    def create_stack(self, stack_name: str) -> None:
        encrypted = ["--secrets-provider", self.secrets_provider] if self.secrets_provider else []
        command = ["stack", "init", stack_name, "--no-select", *encrypted]
        self.runner.run(command, self.work_dir, self.env_vars)


class Runner(PulumiCommand):
    """The `pulumi` command: told of the end that Ctrl-C or another signal asks for, and waited
    for. Its failures are StackErrors that say what to do.
    """

    def __init__(self, pulumi: Pulumi):
        self.pulumi = pulumi
        try:
            super().__init__(version=VersionInfo(*OLDEST_PULUMI))
        except FileNotFoundError:
            raise StackError(f"there is no `pulumi` on PATH: {HOW_TO_INSTALL}") from None
        except (InvalidVersionError, subprocess.CalledProcessError) as error:
            raise StackError(f"this `pulumi` can't be used: {HOW_TO_INSTALL}\n{error}") from None

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Show | None = None,
        on_error: Show | None = None,
    ) -> CommandResult:
        """Run it for the Automation API; what it says of errors is shown, unless `on_error` is."""
        environment = {**additional_env, "PULUMI_AUTOMATION_API": "true"}
        command = ["--non-interactive", *args]
        result = self._waited_for(command, environment, subprocess.PIPE, on_output, on_error)
        if result.code:
            raise self._failure(args, result, "" if on_output else result.stdout[-4000:])
        return result

    def ask(self, command: str) -> None:
        """Run a command in this terminal: it shows what it would do, and waits for a yes."""
        arguments = [command, "--stack", self.pulumi.stack]
        result = self._waited_for(arguments, self.pulumi.variables, None)
        if result.code:
            raise self._failure(arguments, result)

    def _waited_for(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        output: int | None,
        on_output: Show | None = None,
        on_error: Show | None = None,
    ) -> CommandResult:
        complain = partial(print, end="", file=self.pulumi.log or sys.stderr, flush=True)
        with _interrupts_left_to_pulumi() as interrupted:
            process = subprocess.Popen(  # noqa: S603
                [self.command, *arguments],
                cwd=self.pulumi.folder,
                stdout=output,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
            )
            with process, ThreadPoolExecutor() as threads:
                written = threads.submit(_passed_on, process.stdout, on_output)
                said = threads.submit(_passed_on, process.stderr, on_error or complain)
                try:
                    process.wait()
                except KeyboardInterrupt:  # not of Ctrl-C: pulumi doesn't know
                    process.send_signal(signal.SIGINT)
                    raise
        if interrupted and not process.returncode:
            goes_on = self.pulumi.advise and _changes_resources(arguments)
            on = f"; {self._again(arguments)} goes on from here" if goes_on else ""
            raise StackError(f"stopped{on}")
        return CommandResult(written.result(), said.result(), process.returncode)

    def _again(self, arguments: list[str]) -> str:
        if not _changes_resources(arguments):
            return "the same again"
        return f"`make {'down' if 'destroy' in arguments else 'up'} STACK={self.pulumi.stack}`"

    def _failure(
        self, arguments: list[str], result: CommandResult, written: str = ""
    ) -> StackError:
        command = " ".join(takewhile(lambda word: not word.startswith("-"), arguments))
        told = f"{written}`pulumi {command} --stack {self.pulumi.stack}` failed"
        return StackError(f"{told}{self._advice(arguments, create_command_error(result))}")

    def _advice(self, arguments: list[str], error: Exception) -> str:
        if not self.pulumi.advise:
            return ""
        stack, again = self.pulumi.stack, self._again(arguments)
        bootstrap = f"`make bootstrap STACK={stack}`"
        if NO_BACKEND in str(error):
            return f": infra/Pulumi.{stack}.yaml names no backend. {bootstrap} does that."
        if isinstance(error, StackNotFoundError):
            return f": there is no such stack. {self.pulumi.create or bootstrap} makes it."
        if not isinstance(error, ConcurrentUpdateError):
            if not _changes_resources(arguments):
                return "; the reason is above"
            return f". What it had done stays done: mend what it names and repeat {again}."
        unlock = self.pulumi.unlock or typed(stack, "cancel")
        return (
            ". Another command changes this stack, or one that was killed left its lock: the line "
            f"above says whose it is. Wait for it; if it runs no more, {unlock}, then {again}."
        )


def _changes_resources(arguments: list[str]) -> bool:
    """Whether a command changes resources; what it had done when it fails stays done."""
    return arguments[0] in ("up", "destroy")


def _passed_on(stream: IO[bytes] | None, show: Show | None) -> str:
    """What pulumi says, shown as it comes: it may be a question."""
    said = ""
    if stream is None:  # the terminal's
        return said
    parts = iter(partial(os.read, stream.fileno(), 65536), b"")
    for text in codecs.iterdecode(parts, "utf-8", "replace"):
        said += text
        if show:
            show(text)
    return said


@contextmanager
def _interrupts_left_to_pulumi() -> Iterator[list[int]]:
    """Ctrl-C reaches pulumi as well, which ends what it is about; Python would kill it for that."""
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
