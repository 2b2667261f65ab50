"""docs/performance.md: each bench writes its table into its own section of that page."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainyard.tools.errors import StackError

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
XGBOOST = "xgboost-cpu" if platform.system() == "Linux" else "xgboost"


def show(console: Console, section: str, table: Table, *notes: str, page: Path = PAGE) -> None:
    """Print a table and what is to be said of it, and put both into the page's section.

    Args:
        section: what stands in the page's comments around it: `<!-- section -->`.
    """
    notes = (*notes, machine())
    console.print(table)
    for note in notes:
        console.print(note)
    text = page.read_text()
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->"
    measured = "\n".join([*_markdown(table), "", "\\\n".join(notes), ""])
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise StackError(f"{page} has no section {begin.strip()}: the table is in no file")
    page.write_text(pattern.sub(lambda _: begin + measured + end, text))


def machine() -> str:
    """What it was measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("polars", XGBOOST, "prefect"))
    python = platform.python_version()
    return f"{os.cpu_count()} cores, {platform.machine()}; Python {python}, {packages}"


def _markdown(table: Table) -> Sequence[str]:
    """A table's lines; captions become a line below."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    first, *rows = zip(*columns, strict=True)
    align = ["---:" if column.justify == "right" else "---" for column in table.columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (first, align, *rows)]
    caption = str(table.caption or "").replace("\n", "\\\n")
    return [*lines, "", caption] if caption else lines
