"""A `pulumi` that says what a test wants it to say."""

import os
from pathlib import Path

import pytest

from trainyard.aws.pulumi_cli import Pulumi

# Of 3.200 the Automation API reads the engine's events from a file.
SCRIPT = """#!/bin/sh
[ "$1" = version ] && exec echo v3.200.0
echo "$@" > {folder}/asked
for word; do [ "$before" = --event-log ] && log=$word; before=$word; done
cat {folder}/said >> ${{log:-/dev/stdout}}
[ -z "$log" ] || cat {folder}/end >> $log
printf '%s' '{stderr}' >&2
exit {code}
"""


def fake_pulumi(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *events: str, code: int = 0, stderr: str = ""
) -> Pulumi:
    """Put one on PATH that tells these events, and leaves in `folder/asked` what it is asked."""
    (folder / "said").write_text("".join(f"{each}\n" for each in events))
    (folder / "end").write_text('{"summaryEvent": {"durationSeconds": 1}}\n{"cancelEvent": {}}\n')
    program = folder / "pulumi"
    program.write_text(SCRIPT.format(folder=folder, code=code, stderr=stderr))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Pulumi("dev", folder)
