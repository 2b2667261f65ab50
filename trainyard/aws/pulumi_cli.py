"""A stack as Pulumi sees it: by its Automation API, and by `pulumi` where a person answers it.

The user's selected stack and login stay as they were: each call names the stack, and the backend
of the stack's file. `. infra/use STACK` gives the same to a typed `pulumi`.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainyard.contract.stack_config import SettingsError, read_config
from trainyard.paths import PROGRAM
from trainyard.tools.errors import StackError

if TYPE_CHECKING:  # a second of imports, which only who calls pulumi has to wait for
    from pulumi.automation import Stack

    from trainyard.aws.pulumi_runner import Workspace

# That of `refresh --preview-only`, with --exclude.
OLDEST_PULUMI = (3, 160, 0)
HOW_TO_INSTALL = "https://www.pulumi.com/docs/install/"
POLICY_PACK = str(PROGRAM / "policy")


def typed(stack: str, command: str) -> str:
    """A `pulumi` command for a person to type, with the stack and backend that the tool uses."""
    return f"`. infra/use {stack} && pulumi --cwd infra {command}`"


@dataclass(frozen=True)
class Pulumi:
    """One stack, and how Pulumi is run for it."""

    stack: str
    folder: Path = PROGRAM
    environment: Mapping[str, str] = field(default_factory=dict)
    """For pulumi; a backend in it wins over the one of the stack's file."""
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

    @cached_property
    def workspace(self) -> "Workspace":
        from trainyard.aws.pulumi_runner import Workspace

        return Workspace(self)

    @cached_property
    def api(self) -> "Stack":
        """The stack in Pulumi's Automation API; all that fails there is a StackError."""
        from pulumi.automation import Stack

        return Stack.select(self.stack, self.workspace)

    @property
    def variables(self) -> dict[str, str]:
        """What `pulumi` finds in its environment, beside the shell's."""
        backend = self.settings().get("trainyard:backend")
        return {**({"PULUMI_BACKEND_URL": backend} if backend else {}), **self.environment}

    def settings(self) -> dict[str, Any]:
        """What the stack's file says; nothing where there is none."""
        file = self.folder / f"Pulumi.{self.stack}.yaml"
        try:
            return read_config(file) if file.exists() else {}
        except SettingsError as error:
            raise StackError(f"{error}") from None

    def make(self, secrets_provider: str = "") -> None:
        if self.stack not in {each.name for each in self.workspace.list_stacks()}:
            self.workspace.secrets_provider = secrets_provider or None
            self.workspace.create_stack(self.stack)

    def up(self) -> None:
        if self._somebody_answers():
            self.workspace.runner.ask("up")
        else:
            self.api.up(**self._shown())

    def preview(self) -> None:
        """Say what an up would do, and what breaks the rules of infra/policy."""
        self.api.preview(diff=True, policy_packs=[POLICY_PACK], **self._shown())

    def destroy(self) -> None:
        """Remove the stack; with protected data in it, nothing of it."""
        resources = self.state().get("resources") or ()
        kept = [each["urn"].split("::")[-1] for each in resources if each.get("protect")]
        if kept:  # found out by `destroy` itself only when all else is gone
            rest = typed(self.stack, "destroy --exclude-protected")
            raise StackError(
                f"nothing was removed: {', '.join(kept)} hold data and are protected. To keep them "
                f"and remove the rest: {rest}. To remove them too: docs/operations.md, "
                "“A stack destroyed”."
            )
        if self._somebody_answers():
            self.workspace.runner.ask("destroy")
        else:
            self.api.destroy(**self._shown())

    def outputs(self) -> dict[str, Any]:
        return {name: output.value for name, output in self.api.outputs().items()}

    def state(self) -> Mapping[str, Any]:
        """What the stack's state has, such as `resources`."""
        return self.api.export_stack().deployment or {}

    def _somebody_answers(self) -> bool:
        return self.ask and self.log is None and sys.stdin.isatty()

    def _shown(self) -> dict[str, Any]:
        shown = self.log or sys.stdout
        return {
            "on_output": lambda text: print(text, end="", file=shown, flush=True),
            "color": "always" if shown.isatty() else "never",
        }

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        """Run Python of ours on this machine, from the folder `code`.

        What ends this command ends that as well, and it is waited for: it may say how far it came.
        """
        ours = {"PYTHONPATH": str(code)}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *command[1:]],
            cwd=code,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **self.environment, **environment, **ours},
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        if process.returncode:
            raise StackError(f"`{' '.join(command)}` failed; the reason is above")
