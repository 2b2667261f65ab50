"""The `gh` command, for what a run on GitHub or a first set-up tells GitHub."""

import shutil
import subprocess
from contextlib import suppress

from trainyard.tools.errors import StackError


class GhError(StackError):
    """`gh` refused; the message is what it said."""


def gh(*arguments: str) -> str:
    command = shutil.which("gh")
    if not command:
        raise GhError("there is no `gh` on PATH: https://cli.github.com")
    done = subprocess.run([command, *arguments], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise GhError(f"`gh {' '.join(arguments[:3])} ...` failed: {said}")
    return done.stdout.strip()


def logged_in() -> bool:
    with suppress(GhError):
        gh("auth", "status")
        return True
    return False
