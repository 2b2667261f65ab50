"""A clone of the repository, and its commands as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest


class Clone:
    """A clone of its own, so that neither the user's stack nor the repository is touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".trainyard"
        # a user's own settings: none of them may reach the stack
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PREFECT_API_URL": "https://api.prefect.cloud/api/accounts/mine",
            "PREFECT_API_KEY": "pnu_mine",
            "PREFECT_PROFILE": "mine",
            "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command; its output is the process's stdout."""
        return subprocess.Popen(
            [sys.executable, "-m", "trainyard", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a terminal of its own: Ctrl-C goes to it alone
        )

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Run a command to its end; give all that the user sees."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=600)
        assert (process.returncode != 0) == fails, output
        return output

    @property
    def login(self) -> tuple[str, str]:
        """User and password of the stack's Prefect."""
        user, _, password = (self.home / "prefect-login").read_text().strip().partition(":")
        return user, password

    def processes(self) -> list[psutil.Process]:
        """Every process that was started from this clone's stack."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def end(self, patience: float = 5) -> list[str]:
        """What still runs after a moment; it is ended."""
        _, left = psutil.wait_procs(self.processes(), timeout=patience)
        commands = [" ".join(process.cmdline()) for process in left]
        for process in left:
            process.kill()
        return commands

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("TRAINYARD_STACK_DIR") == str(self.home)
        except psutil.Error:
            return False


def read_outputs(clone: Clone) -> dict[str, Any]:
    return dict(json.loads((clone.home / "outputs.json").read_text()))


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read a command's output until a line has `text`; give what was read."""
    assert process.stdout
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Press Ctrl-C: it goes to all of the terminal's processes. Gives exit code and output."""
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def wait_for(what: str, condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.3)
    pytest.fail(f"not within {seconds} s: {what}")
