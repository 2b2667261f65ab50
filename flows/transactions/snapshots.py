"""Snapshots: all transactions of the database as Parquet in the artifact store, a file a run.

Each is complete: it is written once all pages were read.
"""

import polars as pl
from pydantic import BaseModel

from flows.platform.artifact_store import artifact_path, read_parquet, sha256, write_parquet
from flows.platform.contract import ContractError
from flows.platform.run_info import RunInfo


class Snapshot(BaseModel):
    """A file of transactions that nobody changes any more."""

    uri: str
    sha256: str
    rows: int


def write_snapshot(rows: pl.DataFrame, store: str, run: RunInfo) -> Snapshot:
    """Write a run's snapshot; its name sorts by the run's scheduled time."""
    name = f"{run.scheduled:%Y-%m-%dT%H%M%S}-{run.id[-8:]}.parquet"
    path = artifact_path(store, "transactions", "snapshots", name)
    write_parquet(rows, path)
    return Snapshot(uri=str(path), sha256=sha256(path), rows=len(rows))


def last_snapshot(store: str) -> str | None:
    """The URI of the newest snapshot; None before the first one."""
    folder = artifact_path(store, "transactions", "snapshots")
    files = sorted(folder.glob("*.parquet"), key=str) if folder.exists() else []
    return str(files[-1]) if files else None


def read_snapshot(uri: str) -> tuple[Snapshot, pl.DataFrame]:
    """Read a snapshot by its URI.

    Raises:
        ContractError: it is no Parquet file.
        ArtifactStoreError: it isn't there, or the store doesn't answer.
    """
    path = artifact_path(uri)
    try:
        rows = read_parquet(path)
        return Snapshot(uri=uri, sha256=sha256(path), rows=len(rows)), rows
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{uri}: no snapshot of transactions ({error}); ingest anew") from error
