"""Rows that neither training nor search sees: on them, models are compared."""

import hashlib
from io import BytesIO

import numpy as np
import pandas as pd
import polars as pl
from polars import selectors
from pydantic import BaseModel
from upath import UPath

from flows.lifecycle.spec import pandas_frame
from flows.platform.artifact_store import artifact_path, read, write
from flows.platform.tracking import InputData

PARTS = 5
"""One row of so many is held out."""
LEAST_ROWS = 10
"""On fewer, luck decides a comparison."""


class HoldoutError(ValueError):
    """A comparison can't be made on these rows: the message says why and what to do."""


class SeenData(InputData):
    """A data set that training or search read, for the record of what a model has seen."""

    held_out_by: list[str]
    """The columns by which `held_out` chose the rows that were kept from it; none if none were."""


class KeptRows(BaseModel):
    """Rows as Parquet in the artifact store, under a name that is their hash."""

    uri: str
    sha256: str
    """Of the file."""
    rows: int


class Holdout(KeptRows):
    """Held-out rows."""

    held_out_by: list[str]
    """The columns that chose them."""
    data: str
    """The name of the data set that they were kept from."""
    data_sha256: str

    def seen_by(self, seen: list[SeenData]) -> str:
        """The data set by which a model has seen these rows; empty if it hasn't."""
        for each in seen:
            same = each.name == self.data or each.sha256 == self.data_sha256
            # other columns choose other rows
            if same and (not each.held_out_by or each.held_out_by != self.held_out_by):
                return each.name
        return ""


def held_out(rows: pl.DataFrame) -> pl.Series:
    """Which of n rows are held out: a fifth, chosen by what is in them, so always the same ones.

    Equal rows go together. The hash is pandas' own, which depends on nothing but the values.
    """
    # one null in a column makes NumPy's whole numbers floats, and truth values objects
    as_floats = rows.with_columns(pl.col(pl.Boolean).cast(pl.Int8)).with_columns(
        selectors.integer().cast(pl.Float64)
    )
    hashes = pd.util.hash_pandas_object(pandas_frame(as_floats), index=False).to_numpy()
    return pl.Series(hashes % np.uint64(PARTS) == 0)


def keep_holdout(rows: pl.DataFrame, model: str, store: str, data: SeenData) -> Holdout:
    """Write held-out rows.

    Args:
        rows: with the model's input and its target.
        model: whose holdout it is.
        store: the artifact store's URI.
        data: what they were kept from.

    Raises:
        HoldoutError: there are too few.
        ArtifactStoreError: the store can't be written.
    """
    if len(rows) < LEAST_ROWS:
        raise HoldoutError(
            f"{data.name}: {len(rows)} of its rows are held out, and a comparison needs "
            f"{LEAST_ROWS}; train on more data"
        )
    return Holdout(
        **keep(rows, artifact_path(store, "holdouts", model)).model_dump(),
        held_out_by=data.held_out_by,
        data=data.name,
        data_sha256=data.sha256,
    )


def keep(rows: pl.DataFrame, folder: UPath) -> KeptRows:
    """Write rows into a folder of the artifact store.

    Raises:
        ArtifactStoreError: the store can't be written.
    """
    content = BytesIO()
    rows.write_parquet(content)
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    path = folder / f"{sha256}.parquet"
    write(path, content.getvalue())
    return KeptRows(uri=str(path), sha256=sha256, rows=len(rows))


def hold_out(
    rows: pl.DataFrame, model: str, store: str, data: SeenData
) -> tuple[pl.DataFrame, Holdout]:
    """Split rows into those to fit to, and the others, which are kept as `keep_holdout` says."""
    unseen = held_out(rows.select(data.held_out_by))
    return rows.filter(~unseen), keep_holdout(rows.filter(unseen), model, store, data)


def load_kept(kept: KeptRows) -> pl.DataFrame:
    """Read kept rows, if they are still those that were recorded.

    Raises:
        HoldoutError: the file holds something else.
        ArtifactStoreError: it can't be read.
    """
    content = read(artifact_path(kept.uri))
    if hashlib.sha256(content).hexdigest() != kept.sha256:
        raise HoldoutError(
            f"{kept.uri} isn't what was recorded: find out who changed it, and train again"
        )
    return pl.read_parquet(content)


def common_holdout(
    challenger: tuple[Holdout, list[SeenData]], champion: tuple[Holdout, list[SeenData]]
) -> Holdout:
    """The rows that two models are compared on: the challenger's, else the champion's.

    Raises:
        HoldoutError: each has seen the other's.
    """
    (mine, i_saw), (theirs, they_saw) = challenger, champion
    if not (by := mine.seen_by(they_saw)):
        return mine
    if not theirs.seen_by(i_saw):
        return theirs
    raise HoldoutError(
        f"no rows to compare on: the champion was trained on {by}, from which this model's holdout "
        f"comes, and this model on {theirs.data}, from which the champion's does. Train on months "
        "after the champion's"
    )
