"""What `make bench` writes, and that what it compares with does the same work."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from bench import bare, taxi
from bench.page import PAGE, show
from flows.taxi.synthetic import synthetic_month
from trainyard.tools.errors import StackError

TEXT = "# Page\nBefore.\n\n<!-- taxi -->\nold\n<!-- end of taxi -->\n\nAfter.\n"


def figures(caption: str = "") -> Table:
    table = Table(title="Figures", caption=caption)
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_row("fit", "1.5 s")
    return table


def test_a_table_replaces_the_one_before_in_its_section(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(TEXT)
    console = Console(file=StringIO(), width=120)
    for caption in ("first", "second"):
        show(console, "taxi", figures(caption), "a note", page=page)
    text = page.read_text()
    assert text.startswith("# Page\nBefore.\n\n<!-- taxi -->\n| what | seconds |\n| --- | ---: |\n")
    assert "| fit | 1.5 s |\n\nsecond\n\na note\\\n" in text
    assert text.endswith("<!-- end of taxi -->\n\nAfter.\n")
    assert "first" not in text
    assert "old" not in text


def test_a_page_without_the_section_is_told_after_the_table(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Page\n")
    shown = StringIO()
    with pytest.raises(StackError, match="no section <!-- taxi -->: the table is in no file"):
        show(Console(file=shown, width=120), "taxi", figures(), page=page)
    assert "1.5 s" in shown.getvalue()
    assert page.read_text() == "# Page\n"


def test_every_bench_has_its_section() -> None:
    written = {
        name
        for file in PAGE.parents[1].glob("bench/*.py")
        for name in re.findall(r'show\(\s*console,\s*"(\w+)"', file.read_text())
    }
    assert written == set(re.findall(r"<!-- (\w+) -->", PAGE.read_text()))


def test_the_bare_script_does_what_the_pipeline_does(tmp_path: Path) -> None:
    names, paths = ("2023-01", "2023-02"), []
    for name in names:
        paths.append(tmp_path / f"{name}.parquet")
        synthetic_month(name, rows=8_000).write_parquet(paths[-1])
    ours = taxi.run(taxi.Months(names, (paths[0], paths[1])))
    theirs = bare.run(paths[0], paths[1], taxi.PARAMS)
    assert theirs.xgboost_rmse == pytest.approx(ours.xgboost_rmse, rel=0.05)
    assert theirs.linear_rmse == pytest.approx(ours.linear_rmse, rel=0.05)
