"""A month's raw trips a batch at a time, as the model takes them: a file of any size is scored."""

import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import polars.selectors as cs

from flows.lifecycle.batch import Batch
from flows.platform.contract import ContractError
from flows.taxi.contract import NEEDED, NOT_PARQUET, conform
from flows.taxi.features import TRIP_COLUMNS

logger = logging.getLogger(__name__)

ROWS = 100_000
WATCHED = {"fare_amount": pl.Float64()}
"""Columns that the model doesn't take and monitoring looks at, where a file has such numbers."""


def batches(path: Path, file: str) -> Iterator[Batch]:
    """Read a local Parquet file of raw trips; those without a drop-off have no duration yet.

    Args:
        file: its name, for messages.

    Raises:
        ContractError: it is no whole Parquet file, lacks a column, or has one of the wrong type.
    """
    try:
        scan = pl.scan_parquet(path, glob=False)
        there = scan.collect_schema().names()
        needed = [name for name in NEEDED if name in there or name in TRIP_COLUMNS]
        watched = [name for name in WATCHED if name in there and _readable(scan, name)]
        wanted = [*(name for name in needed if name in there), *watched]
        numbered = _plain(scan, wanted).with_row_index("row")
        for raw in numbered.collect_batches(chunk_size=ROWS, maintain_order=True):
            rows = conform(raw, file, needed).with_columns(raw["row"], **_watched(raw))
            readable = pl.col("unreadable").is_null()
            rule = pl.col("unreadable") + " unreadable"
            bad = rows.filter(~readable).select("row", rule=rule)
            yield Batch(rows.filter(readable).drop("unreadable"), raw.join(bad, on="row"))
    except NOT_PARQUET as error:
        fault = str(error).splitlines()[0]
        raise ContractError(
            f"{file}: not a whole Parquet file ({fault}); fetch it again"
        ) from error


def _plain(scan: pl.LazyFrame, columns: list[str]) -> pl.LazyFrame:
    """The columns, categories as text: beside values of another type they can't stand."""
    return scan.select(columns).with_columns((cs.categorical() | cs.enum()).cast(pl.String))


def _readable(scan: pl.LazyFrame, name: str) -> bool:
    """Whether the whole column can be read as numbers: where nobody needs it, it stops nothing."""
    column = _plain(scan, [name])
    if column.collect_schema()[name].is_nested():
        return False
    try:
        column.select(pl.col(name).cast(WATCHED[name], strict=False).sum()).collect(
            engine="streaming"
        )
    except NOT_PARQUET as error:
        fault = str(error).splitlines()[0]
        logger.warning("column %s can't be read, and isn't needed: %s", name, fault)
        return False
    return True


def _watched(raw: pl.DataFrame) -> dict[str, pl.Series | pl.Expr]:
    return {
        name: (raw[name] if name in raw.columns else pl.lit(None)).cast(kind, strict=False)
        for name, kind in WATCHED.items()
    }
