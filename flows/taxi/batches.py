"""A month's raw trips a batch at a time, as the model takes them: a file of any size is scored."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import polars.selectors as cs

from flows.lifecycle.batch import Batch
from flows.platform.contract import ContractError
from flows.taxi.contract import NEEDED, conform
from flows.taxi.features import TRIP_COLUMNS

ROWS = 100_000
WATCHED = {"fare_amount": pl.Float64()}
"""Columns that the model doesn't take and monitoring looks at, where a file has them."""


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
        wanted = [name for name in (*needed, *WATCHED) if name in there]
        # as text, for beside values of another type they can't stand
        plain = scan.select(wanted).with_columns((cs.categorical() | cs.enum()).cast(pl.String))
        numbered = plain.with_row_index("row")
        for raw in numbered.collect_batches(chunk_size=ROWS, maintain_order=True):
            rows = conform(raw, file, needed).with_columns(raw["row"], **_watched(raw))
            readable = pl.col("unreadable").is_null()
            rule = pl.col("unreadable") + " unreadable"
            bad = rows.filter(~readable).select("row", rule=rule)
            yield Batch(rows.filter(readable).drop("unreadable"), raw.join(bad, on="row"))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        fault = str(error).splitlines()[0]
        raise ContractError(
            f"{file}: not a whole Parquet file ({fault}); fetch it again"
        ) from error


def _watched(raw: pl.DataFrame) -> dict[str, pl.Series | pl.Expr]:
    return {
        name: (raw[name] if name in raw.columns else pl.lit(None)).cast(kind, strict=False)
        for name, kind in WATCHED.items()
    }
