"""What the commands print: rich on a terminal, quiet and plain anywhere else."""

from collections import deque
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False, emoji=False)
errors = Console(highlight=False, emoji=False, stderr=True)


def say(text: str, style: str | None = None) -> None:
    """Print one line as it is: paths aren't wrapped, brackets aren't markup."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def done(text: str) -> None:
    console.print(f"[green]✓[/] {escape(text)}", soft_wrap=True)


def fail(text: str) -> None:
    errors.print(f"[bold red]✗[/] {escape(text)}", soft_wrap=True)


def tail(log: Path) -> str:
    """Return the end of a log with its place above it, or say that it is empty."""
    try:
        with log.open(errors="replace") as file:
            end = [line.rstrip() for line in deque(file, maxlen=15)]
    except OSError:
        end = []
    if not any(end):
        return f"its log is empty: {log}"
    return "\n".join([f"the end of {log}:", *(f"  │ {line}" for line in end)])
