"""A `pulumi` that says what a test wants it to say."""

import os
from pathlib import Path

import pytest

from trainyard.aws.pulumi_cli import Pulumi


def fake_pulumi(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, code: int = 0, stderr: str = ""
) -> Pulumi:
    """Put one on PATH that says these lines, and leaves in `folder/asked` what it is asked."""
    (folder / "said").write_text("\n".join(lines) + "\n")
    program = folder / "pulumi"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/asked\ncat {folder}/said\n'
        f"printf '%s' '{stderr}' >&2\nexit {code}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Pulumi("dev", folder)
