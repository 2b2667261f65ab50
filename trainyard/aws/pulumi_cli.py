"""The `pulumi` command, for one stack."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainyard.paths import PROGRAM
from trainyard.tools.errors import StackError

NO_PULUMI = "there is no `pulumi` on PATH: https://www.pulumi.com/docs/install/"


@dataclass(frozen=True)
class Pulumi:
    """The `pulumi` command, for one stack."""

    stack: str
    folder: Path = PROGRAM
    environment: Mapping[str, str] = field(default_factory=dict)
    log: IO[str] | None = None
    """Where its lines go; the terminal without."""
    ask: bool = True
    """Where a person looks, show what an up or a destroy would do, and wait for their yes."""
    advise: bool = True
    """Say what to type after a failure."""
    unlock: str = ""
    """What ends the lock of a command that was killed, if it isn't `pulumi cancel`."""
    create: str = ""
    """What makes the stack, if it isn't `make bootstrap`."""

    def up(self) -> None:
        """Bring the stack to what program and settings say."""
        self._call(["up", *self._approval_flags()], self.log)

    def preview(self) -> None:
        """Say what an up would do, and what breaks the rules of infra/policy."""
        self._call(["preview", "--diff", "--policy-pack", str(PROGRAM / "policy")], self.log)

    def destroy(self) -> None:
        """Remove the stack; with protected data in it, nothing of it."""
        state = json.loads(self.run("stack", "export"))["deployment"]
        kept = [r["urn"].split("::")[-1] for r in state.get("resources", []) if r.get("protect")]
        if kept:  # found out by `destroy` itself only when all else is gone
            raise StackError(
                f"nothing was removed: {', '.join(kept)} hold data and are protected. To keep them "
                f"and remove the rest: `pulumi --cwd infra destroy --exclude-protected --stack "
                f"{self.stack}`. To remove them too: docs/operations.md, “A stack destroyed”."
            )
        self._call(["destroy", *self._approval_flags()], self.log)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        found: dict[str, Any] = json.loads(self.run("stack", "output", "--json", "--show-secrets"))
        return found

    def _approval_flags(self) -> list[str]:
        asked = self.ask and self.log is None and sys.stdin.isatty()
        return [] if asked else ["--yes", "--skip-preview"]

    def run(self, *arguments: str) -> str:
        """`pulumi ARGUMENTS`, and what it wrote."""
        return self._call(arguments, subprocess.PIPE)

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        """Run Python of ours on this machine, from the folder `code`."""
        ours = {"PYTHONPATH": str(code)}
        done = subprocess.run(  # noqa: S603
            [sys.executable, *command[1:]],
            cwd=code,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **self.environment, **environment, **ours},
        )
        if done.returncode:
            raise StackError(f"`{' '.join(command)}` failed; the reason is above")

    def _call(self, arguments: Sequence[str], output: IO[str] | int | None) -> str:
        command = ["pulumi", "--cwd", str(self.folder), *arguments, "--stack", self.stack]
        again = f"`make {'down' if arguments[0] == 'destroy' else 'up'} STACK={self.stack}`"
        with _interrupts_left_to_pulumi() as interrupted:
            try:
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdout=output,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **self.environment},
                )
            except FileNotFoundError:
                raise StackError(NO_PULUMI) from None
            with process, ThreadPoolExecutor() as threads:
                errors = threads.submit(self._pass_on, process.stderr)
                try:
                    written = process.stdout.read() if process.stdout else ""
                    process.wait()
                except KeyboardInterrupt:  # not of Ctrl-C: pulumi doesn't know
                    process.send_signal(signal.SIGINT)
                    raise
                said = errors.result()
        if process.returncode:
            advice = self._advice(said, again)
            raise StackError(f"{written[-4000:]}`{' '.join(command)}` failed{advice}")
        if interrupted:
            raise StackError(f"stopped; {again} goes on from here" if self.advise else "stopped")
        return written

    def _pass_on(self, errors: IO[str] | None) -> str:
        """What pulumi says of errors, shown as it comes: it may be a question."""
        said = ""
        while errors and (part := errors.read(1)):
            said += part
            print(part, end="", file=self.log or sys.stderr, flush=True)
        return said

    def _advice(self, said: str, again: str) -> str:
        if not self.advise:
            return ""
        if "no stack named" in said:
            create = self.create or f"`make bootstrap STACK={self.stack}`"
            return f": there is no such stack. {create} makes it."
        if "currently locked" not in said:
            return f". What it had done stays done: mend what it names and repeat {again}."
        unlock = self.unlock or f"`pulumi --cwd infra cancel --stack {self.stack}`"
        return (
            ". Another command changes this stack, or one that was killed left its lock: the line "
            f"above says whose it is. Wait for it; if it runs no more, {unlock}, then {again}."
        )


@contextmanager
def _interrupts_left_to_pulumi() -> Iterator[list[int]]:
    """Ctrl-C reaches pulumi as well, which ends what it is about. Python would kill it for that,
    and leave a locked stack with resources that its state doesn't know.
    """
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
