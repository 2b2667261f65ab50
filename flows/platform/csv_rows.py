"""Read a CSV for a contract: as text, by line, each line that isn't whole known as such."""

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from flows.platform.contract import ContractError

FIRST_LINE = 2
"""Of the rows: the header is line 1."""
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_rows(path: Path, file: str, columns: Sequence[str], max_rows: int) -> pl.DataFrame:
    """Return some columns of a CSV as text, with two columns about each row.

    `row` is its line in the file, and `fault` is null or says that the line has too few or too many
    fields. Other columns of the file are never in memory. A value is null where nothing is written.

    Args:
        path: of a local file.
        file: its name for messages.
        columns: the needed ones; the file may have more.
        max_rows: beyond which the file is refused.

    Raises:
        ContractError: a needed column is missing, there are no rows or too many, a quoted value
            goes over several lines, or the file is not UTF-8 or no CSV.
    """
    line, fields = pl.col("line"), pl.col("fields")
    quotes = line.str.count_matches('"', literal=True)
    plain = pl.when(quotes > 0).then(line.str.replace_all('"[^"]*"', "")).otherwise(line)
    lines = pl.scan_lines(path, name="line", row_index_name="row", row_index_offset=1)
    rows = pl.scan_csv(
        path,
        infer_schema=False,
        extra_columns="ignore",
        truncate_ragged_lines=True,
        row_index_name="row",
        row_index_offset=FIRST_LINE,
        n_rows=max_rows + 1,
    )
    try:
        width = len(_header(lines, file, columns))
        counted = lines.slice(1, max_rows + 1).select(
            "row", open=quotes % 2 == 1, fields=plain.str.count_matches(",", literal=True) + 1
        )
        odd = counted.filter(pl.col("open") | (fields != width)).collect(engine="streaming")
        if (opened := odd.filter("open")).height:
            raise ContractError(
                f"{file}: line {opened['row'][0]:,} has a quote that doesn't end in it; close it, "
                "and write each row in one line"
            )
        raw = rows.select("row", *columns).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise ContractError(_unreadable(path, file, error)) from error
    if raw.is_empty():
        raise ContractError(f"{file}: no rows under its header; export it again")
    if raw.height > max_rows:
        raise ContractError(f"{file}: more than {max_rows:,} rows; split it into several files")
    fewer, more = (
        pl.col("row").is_in(odd.filter(wrong)["row"].implode())
        for wrong in (fields < width, fields > width)
    )
    few, many = pl.lit("too few fields"), pl.lit("too many fields")
    return raw.with_columns(fault=pl.when(fewer).then(few).when(more).then(many))


def _header(lines: pl.LazyFrame, file: str, columns: Sequence[str]) -> list[str]:
    """Return the names of all columns, if each needed one is there once."""
    first = lines.head(1).collect()["line"].to_list()
    if not first:
        raise ContractError(f"{file}: it is empty; export it again")
    names = next(csv.reader(first[0].removeprefix("\ufeff").splitlines()), [])
    if missing := [name for name in columns if name not in names]:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        other = [said for mark, said in DELIMITERS.items() if mark in first[0]]
        advice = f"write commas between fields, not {other[0]}" if other else "rename the column"
        raise ContractError(
            f"{file}: no column {', '.join(missing)} (it has {shown or 'none'}); {advice}"
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise ContractError(f"{file}: two columns are called {', '.join(twice)}; keep one of them")
    return names


def _unreadable(path: Path, file: str, error: pl.exceptions.PolarsError) -> str:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"{file}: line {number:,} isn't UTF-8; convert the file, such as with iconv"
    return f"{file}: it can't be read as CSV ({str(error).splitlines()[0][:200]}); export it again"
