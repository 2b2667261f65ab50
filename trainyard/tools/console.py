"""What the commands print: rich on a terminal, quiet and plain anywhere else."""

import re
from collections import deque
from collections.abc import Iterator
from itertools import dropwhile, islice
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, emoji=False)
errors = Console(highlight=False, emoji=False, stderr=True)

_ERROR = re.compile(r"\b(ERROR|CRITICAL|FATAL)\b|^[\w.]*(Error|Exception)\b")
# a traceback's frames, and what SQLAlchemy says beside its message
_FRAMES = re.compile(
    r'\s*$| {4}|  File "|.*Traceback \(most|(The above|During h).*:$|\[SQL|\(Backg'
)


def say(text: str, style: str | None = None) -> None:
    """Print one line as it is: paths aren't wrapped, brackets aren't markup."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def done(text: str) -> None:
    console.print(f"[green]✓[/] {escape(text)}", soft_wrap=True)


def fail(text: str) -> None:
    errors.print(f"[bold red]✗[/] {escape(text)}", soft_wrap=True)


def tail(log: Path, *, first_error: bool = False) -> str:
    """Return the end of a log, or its first error and what follows, with its place above.

    Tracebacks' frames are left out.
    """
    try:
        with log.open(errors="replace") as file:
            lines: Iterator[str] = (line.rstrip() for line in file if not _FRAMES.match(line))
            if first_error:
                lines = islice(dropwhile(lambda line: not _ERROR.search(line), lines), 15)
            end = deque(lines, maxlen=15)
    except OSError:
        end = deque()
    if not end:
        return tail(log) if first_error else f"its log is empty: {log}"
    what = "the first error in" if first_error else "the end of"
    return "\n".join([f"{what} {log}:", *(f"  │ {line}" for line in end)])
