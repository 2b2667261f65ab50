"""Snapshots: all transactions of the database as Parquet in the artifact store, a file a run."""

import polars as pl
from pydantic import BaseModel

from flows.platform.artifact_store import (
    artifact_path,
    files_in,
    read_parquet,
    sha256,
    write_parquet,
)
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
    found = files_in(artifact_path(store, "transactions", "snapshots"), "*.parquet")
    return str(found[-1]) if found else None


def read_snapshot(uri: str) -> tuple[Snapshot, pl.DataFrame]:
    """Read a snapshot by its URI; a ContractError says that it is none."""
    path = artifact_path(uri)
    try:
        rows = read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{uri}: no snapshot of transactions ({error}); ingest anew") from error
    return Snapshot(uri=uri, sha256=sha256(path), rows=len(rows)), rows
