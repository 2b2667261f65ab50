"""The rows that a model's later months are compared with, kept when it is trained."""

from collections.abc import Iterable

import polars as pl

from flows.lifecycle.batch import Batch
from flows.lifecycle.holdout import KeptRows, keep
from flows.platform.artifact_store import artifact_path

MOST_ROWS = 100_000
"""More say nothing more; a month of millions would take as long to compare."""


class Reference(KeptRows):
    """Rows of a data set as scoring would read them, drawn by chance where they are many."""

    data: str
    """The data set's name."""
    rows_read: int
    """All that it has, with those that can't be read."""


def keep_reference(batches: Iterable[Batch], data: str, model: str, store: str) -> Reference:
    """Write the rows to the artifact store, under a name that is their hash.

    Args:
        batches: all rows of the data set.
        data: its name.
        model: whose reference it is.

    Raises:
        ArtifactStoreError: the store can't be written.
    """
    read, readable = 0, []
    for rows, bad in batches:
        read += len(rows) + len(bad)
        readable.append(rows)
    whole = pl.concat(readable)
    drawn = whole.sample(min(MOST_ROWS, len(whole)), seed=0)
    kept = keep(drawn, artifact_path(store, "references", model))
    return Reference(**kept.model_dump(), data=data, rows_read=read)
