"""Where the rows of a file go after its contract, and what people see of those that are bad."""

from collections.abc import Iterable

import polars as pl
from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import BaseModel

from flows.platform.artifact_store import artifact_path, write_parquet
from flows.platform.contract import listed


class KeptFile(BaseModel):
    """A file after its contract; the URIs are in the artifact store."""

    file: str
    sha256: str
    kept: str
    quarantine: str | None
    """None if no row was quarantined."""
    counts: dict[str, int]
    """Rows quarantined by rule."""


def keep_rows(
    file: str,
    sha256: str,
    good: pl.DataFrame,
    bad: pl.DataFrame,
    counts: dict[str, int],
    workspace: str,
    name: str,
) -> KeptFile:
    """Write a file's rows as Parquet, under a name in the run's workspace, and log how many."""
    kept, quarantine = (
        artifact_path(workspace, part, f"{name}.parquet") for part in ("kept", "quarantine")
    )
    write_parquet(good, kept)
    if counts:
        write_parquet(bad, quarantine)
    rows, found = good.height + bad.height, listed(counts) or "none"
    get_run_logger().info(f"{name}: {rows:,} rows read, {good.height:,} kept; quarantined: {found}")
    return KeptFile(
        file=file,
        sha256=sha256,
        kept=str(kept),
        quarantine=str(quarantine) if counts else None,
        counts=counts,
    )


def report_quarantine(key: str, files: Iterable[KeptFile]) -> None:
    """Count the quarantined rows by file and rule, as a table in Prefect with this key."""
    create_table_artifact(
        key=key,
        table=[
            {"file": each.file, "rule": rule, "rows": rows, "quarantine": each.quarantine}
            for each in files
            for rule, rows in each.counts.items()
        ],
        description="Rows that training can't use, and the first rule that each breaks",
    )
