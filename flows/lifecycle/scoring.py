"""Score a month of rows with the champion: Parquet in the artifact store, whole or not at all.

`scores/<model>/month=YYYY-MM/` has `scores.parquet`, `quarantine.parquet` and, written last,
`record.json`: what they are of. Rows in = rows scored + rows quarantined.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
from mlflow import MlflowClient
from pydantic import BaseModel, Field, ValidationError
from upath import UPath

from flows.lifecycle.batch import Batch
from flows.lifecycle.champion import CHAMPION, load_version
from flows.lifecycle.registry import find_version
from flows.lifecycle.spec import ModelSpec
from flows.platform.artifact_store import ArtifactStoreError, artifact_path, read, write, writing
from flows.platform.contract import listed

NO_ANSWER = "no answer"
"""The rule that a row breaks which the model can't answer."""

Month = Annotated[str, Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$", examples=["2023-01"])]


class ScoringError(ValueError):
    """A month can't be scored: the message says why and what to do."""


class Scored(BaseModel):
    """What a month's scores are of."""

    model: str
    version: str
    month: str
    data: str
    sha256: str
    """Of the data."""
    flow_run: str
    rows: int
    """Scored and quarantined ones."""
    quarantined: dict[str, int]
    """Rows by rule."""
    scores: str
    quarantine: str

    @property
    def unanswered(self) -> int:
        return sum(self.quarantined.values())

    def stands(self, version: str, sha256: str) -> bool:
        """Whether the scores are there, of this version and these data."""
        same = (self.version, self.sha256) == (version, sha256)
        return same and artifact_path(self.scores).exists()


def month_folder(store: str, model: str, month: str) -> UPath:
    return artifact_path(store, "scores", model, f"month={month}")


def read_record(store: str, model: str, month: str) -> Scored | None:
    """What a month's scores are of; None where there are none.

    Raises:
        ArtifactStoreError: the store can't be read.
    """
    try:
        return Scored.model_validate_json(read(month_folder(store, model, month) / "record.json"))
    except ArtifactStoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    except ValidationError:  # of another version of this code: scored anew
        return None


def score_month(
    client: MlflowClient,
    spec: ModelSpec,
    month: str,
    data: str,
    sha256: str,
    batches: Iterable[Batch],
    store: str,
    flow_run: str,
) -> Scored:
    """Score a month with the champion, unless it has scored the same data already.

    Args:
        data: what is scored, for the record.
        sha256: of the data.
        batches: all of its rows; none is read where the scores are there.
        flow_run: whose work it is.

    Raises:
        RegistryError: there is no champion.
        ModelRefusedError: the champion's files aren't those that were registered.
        ScoringError: there are no rows, or none that can be scored; earlier scores stay.
        ArtifactStoreError: the store can't be written.
    """
    champion = find_version(client, spec.name, CHAMPION)
    there = read_record(store, spec.name, month)
    if there and there.stands(str(champion.version), sha256):
        return there
    folder = month_folder(store, spec.name, month)
    scores, quarantine = folder / "scores.parquet", folder / "quarantine.parquet"
    labels = {"model_version": str(champion.version), "flow_run": flow_run}
    with TemporaryDirectory() as local:
        counts = score(
            load_version(client, champion, spec.trusted_types), spec, batches, Path(local), labels
        )
        if not counts[""]:
            found = f"none of its rows can be: {listed(counts)}" if counts else "it has none"
            raise ScoringError(f"{data}: no rows to score, {found}; fetch the month again")
        if there:  # of what is replaced now: a run that is killed here leaves no record
            write(folder / "record.json", b"{}")
        _publish(Path(local, "quarantine.parquet"), quarantine)
        _publish(Path(local, "scores.parquet"), scores)
    scored = counts.pop("", 0)
    record = Scored(
        model=spec.name,
        version=str(champion.version),
        month=month,
        data=data,
        sha256=sha256,
        flow_run=flow_run,
        rows=scored + counts.total(),
        quarantined=dict(counts.most_common()),
        scores=str(scores),
        quarantine=str(quarantine),
    )
    write(folder / "record.json", record.model_dump_json(indent=2).encode())
    return record


def score(
    model: Any, spec: ModelSpec, batches: Iterable[Batch], folder: Path, labels: dict[str, str]
) -> Counter[str]:
    """Write `scores.parquet` and `quarantine.parquet` into a folder, a batch in memory at a time.

    Args:
        model: as `load_version` gives it.
        labels: columns of the scores that are the same in all rows.

    Returns:
        Rows by the rule that they break; by no rule ("") those that were scored.
    """
    counts: Counter[str] = Counter()
    parts = {"scores": folder / "scores", "quarantine": folder / "quarantine"}
    for part in parts.values():
        part.mkdir()
    for number, (rows, bad) in enumerate(batches):
        answered, unanswered = answered_by(model, spec, rows)
        broken = pl.concat(
            [bad, unanswered.with_columns(rule=pl.lit(NO_ANSWER))], how="diagonal_relaxed"
        )
        counts[""] += len(answered)
        counts.update(dict(broken["rule"].value_counts().iter_rows()))
        columns = {name: pl.lit(value) for name, value in labels.items()}
        answered.with_columns(**columns).write_parquet(parts["scores"] / f"{number:06}.parquet")
        broken.write_parquet(parts["quarantine"] / f"{number:06}.parquet")
    for name, part in parts.items():
        if written := sorted(part.iterdir()):
            whole = pl.concat(map(pl.scan_parquet, written), how="diagonal_relaxed")
            whole.sink_parquet(folder / f"{name}.parquet")
    counts += Counter()  # rules that nothing broke
    return counts


def answered_by(
    model: Any, spec: ModelSpec, rows: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with the model's answers, and those that have none."""
    if rows.is_empty():
        return rows, rows
    named, known = answers(model, spec, rows)
    return rows.with_columns(named.get_columns()).filter(known), rows.filter(~known)


def answers(model: Any, spec: ModelSpec, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The model's answers for one or more rows, by name, and for which of them it has any."""
    given = np.asarray(spec.answer(model, spec.model_input(rows)))
    columns = given.reshape(len(rows), -1).T
    numbers = np.issubdtype(columns.dtype, np.number)  # the others are classes
    known = pl.Series((np.isfinite(columns) if numbers else pd.notna(columns)).all(axis=0))
    named = dict(zip(spec.answers, columns, strict=True))
    if columns.dtype == object:  # Polars would make a column of None that no file can hold
        named = {name: values.tolist() for name, values in named.items()}
    return pl.DataFrame({name: pl.Series(values) for name, values in named.items()}), known


def _publish(file: Path, path: UPath) -> None:
    with file.open("rb") as content, writing(path) as out:
        shutil.copyfileobj(content, out, 1 << 20)
