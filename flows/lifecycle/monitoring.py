"""Compare a month's scores with the reference that was kept when their model was trained.

`monitoring/<model>/` of the artifact store has `YYYY-MM.html`, a page for people, and
`YYYY-MM.json`, the same for programs; of logged requests they are `YYYY-MM-served`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import polars as pl
from mlflow import MlflowClient
from pydantic import BaseModel

from flows.lifecycle import monitoring_page
from flows.lifecycle.champion import load_version
from flows.lifecycle.drift import Shift, shift
from flows.lifecycle.holdout import load_kept
from flows.lifecycle.monitored_rows import (
    MOST_ROWS,
    MonitoringError,
    MonthRows,
    Rows,
    monitoring_of,
    scored_rows,
    served_rows,
)
from flows.lifecycle.registry import find_version, recorded_lineage
from flows.lifecycle.scoring import Scored, answered_by
from flows.lifecycle.spec import Limit, ModelSpec, Monitoring
from flows.platform.artifact_store import artifact_path, write

FEWEST_TRUTHS = 200
"""Of fewer rows with truth, luck decides the error."""
PARTS = 20
"""How much an error is luck, as many parts of its rows tell."""
LUCK = 3.58
"""Deviations of a mean of so many parts that luck stays below, with a confidence of 99.9 %."""
LEAST_FOUND = 0.001
"""Data that have a smaller share of the scored rows are others, of which chance found some."""


class Check(BaseModel):
    """One limit, and what was found."""

    name: str
    found: str
    limit: str
    reason: str
    """Why the limit is what it is."""
    past: bool


class Monitored(BaseModel):
    """A month against the reference of the version that scored it."""

    model: str
    version: str
    month: str
    flow_run: str
    reference: str
    """The name of the reference's data."""
    reference_rows: int
    rows: int
    truths: int
    """Rows whose true value is known."""
    checks: list[Check]
    """Those past their limits first."""
    shifts: list[Shift]
    page: str
    of: Rows = "scored"
    note: str = ""
    """What isn't compared, and why."""

    @property
    def past(self) -> list[Check]:
        return [check for check in self.checks if check.past]

    @property
    def findings(self) -> str:
        found = [f"{check.name} {check.found} (limit {check.limit})" for check in self.past]
        return "; ".join(found) or "all within limits"

    @property
    def summary(self) -> str:
        return f"{self.model} version {self.version} in {self.when}: {self.findings}"

    @property
    def when(self) -> str:
        return f"{self.month}'s requests" if self.of == "served" else self.month


LateTruth = Callable[[Scored], pl.DataFrame | None]
"""Gives the true values that have come since a month was scored, with the rows' identity."""


def monitor_month(
    client: MlflowClient,
    spec: ModelSpec,
    month: str,
    store: str,
    flow_run: str,
    late_truth: LateTruth,
    of: Rows = "scored",
) -> Monitored:
    """Compare a month with its model's reference; write the page and the record.

    Raises:
        MonitoringError: the month has no scores, or no requests, or their model no reference; a
            column is missing or of a type that can't be compared; late truth is of other rows.
        RegistryError: the version that answered it is gone.
        ModelRefusedError: its files aren't those that were registered.
        HoldoutError: the reference isn't what was recorded.
        ArtifactStoreError: the store can't be read or written.
    """
    served = of == "served"
    read = (served_rows if served else scored_rows)(spec, month, store)
    spec, scored, watch = read.spec, read.scored, monitoring_of(spec)
    lineage = recorded_lineage(client, spec, scored.version)
    if lineage.reference is None:
        raise MonitoringError(
            f"{spec.name} version {scored.version} was trained without keeping a reference: train "
            "again, and score the month with the new champion"
        )
    version = find_version(client, spec.name, scored.version)
    model = load_version(client, version, spec.trusted_types)
    reference, unseen = (
        answered_by(model, spec, load_kept(kept))[0]
        for kept in (lineage.reference, lineage.holdout)
    )
    rows = _with_late_truth(read, late_truth, served)
    compared = rows.sample(min(MOST_ROWS, len(rows)), seed=0)
    shifts, checks = compare(spec, reference, unseen, compared)
    checks += _counted(watch, lineage.reference.rows_read, scored, with_volume=not served)
    name = f"{month}-served" if served else month
    found = Monitored(
        model=spec.name,
        version=scored.version,
        month=month,
        flow_run=flow_run,
        reference=lineage.reference.data,
        reference_rows=lineage.reference.rows_read,
        rows=scored.rows,
        truths=len(_with_known_truth(watch, rows)),
        checks=sorted(checks, key=lambda check: not check.past),
        shifts=shifts,
        page=str(artifact_path(store, "monitoring", spec.name, f"{name}.html")),
        of=of,
        note=read.note,
    )
    page = artifact_path(found.page)
    write(page, monitoring_page.render(found).encode())
    write(page.with_suffix(".json"), found.model_dump_json(indent=2).encode())
    return found


def compare(
    spec: ModelSpec, reference: pl.DataFrame, unseen: pl.DataFrame, rows: pl.DataFrame
) -> tuple[list[Shift], list[Check]]:
    """How far rows are from a model's reference, and its error from the one on its holdout.

    Args:
        reference, unseen, rows: of the reference, the holdout and the month, with the model's
            answers.

    Raises:
        MonitoringError: they lack a column that the spec names, or it can't be compared.
    """
    watch = monitoring_of(spec)
    columns = {**watch.columns, **{name: pl.col(name) for name in spec.answers}}
    with _explained(spec):
        shifts = [
            shift(title, *(each.select(it=column).to_series() for each in (reference, rows)))
            for title, column in columns.items()
        ]
        return shifts, [*_moved(watch, shifts), *_wrong(spec, watch, unseen, rows)]


@contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Turn what Polars says of the columns into one message that a user can act on."""
    try:
        yield
    except pl.exceptions.ColumnNotFoundError as error:
        raise MonitoringError(
            f"{spec.name}: its ModelSpec's monitoring names a column that wasn't there when the "
            f"model was trained or the month was scored ({str(error).splitlines()[0]}): train "
            "again, and score the month again"
        ) from error
    except pl.exceptions.PolarsError as error:
        raise MonitoringError(
            f"{spec.name}: a column that its ModelSpec's monitoring names can't be compared "
            f"({str(error).splitlines()[0]}): cast it there, or correct the data"
        ) from error


def _with_late_truth(month: MonthRows, late_truth: LateTruth, served: bool) -> pl.DataFrame:
    """A month's rows with the true values that have come since.

    Args:
        served: whether they are requests, which may lack the identity or be in no data set.
    """
    spec, scored, rows = month.spec, month.scored, month.rows
    identity = monitoring_of(spec).identity
    if served and not {*identity} <= {*rows.columns}:
        return rows
    if (truth := late_truth(scored)) is None:
        return rows
    with _explained(spec):
        truth = truth.cast({name: rows.schema[name] for name in identity})
        found = rows.join(truth, on=[*identity], how="semi", nulls_equal=True).height
        if found >= LEAST_FOUND * len(rows):
            return with_truth(rows, truth, identity, spec.target)
    if served:
        return rows
    raise MonitoringError(
        f"{spec.name}: the data given now have {found:,} of the {len(rows):,} rows of "
        f"{scored.month} that were scored, from {scored.data}: give the same data"
    )


def with_truth(
    rows: pl.DataFrame, truth: pl.DataFrame, identity: tuple[str, ...], target: str
) -> pl.DataFrame:
    """Give rows the true values that they lack.

    Rows of one identity get them in their order.

    Args:
        rows: with `identity` and `target`.
        truth: the same columns.
    """
    keys = [*identity, "nth"]
    nth = pl.int_range(pl.len()).over(*identity).alias("nth")
    numbered = truth.select(*identity, pl.col(target).alias("true")).with_columns(nth)
    joined = rows.with_columns(nth).join(
        numbered, on=keys, how="left", nulls_equal=True, maintain_order="left"
    )
    return joined.with_columns(pl.coalesce(target, "true").alias(target)).drop("nth", "true")


def _moved(watch: Monitoring, shifts: list[Shift]) -> Iterator[Check]:
    for each in shifts:
        limit = max(watch.stability.value, each.by_chance)
        yield Check(
            name=f"drift of {each.column}",
            found=f"{each.stability:.3f}",
            limit=f"{limit:.3g}",
            reason=watch.stability.reason,
            past=each.stability > limit,
        )
    lacking = max(shifts, key=lambda each: each.newly_missing)
    yield _share(f"missing {lacking.column}", lacking.newly_missing, watch.missing)
    strange = max(shifts, key=lambda each: each.unknown - each.unknown_by_chance)
    most = replace(watch.unknown, value=max(watch.unknown.value, strange.unknown_by_chance))
    yield _share(f"unknown {strange.column}", strange.unknown, most)


def _counted(
    watch: Monitoring, reference_rows: int, scored: Scored, with_volume: bool
) -> Iterator[Check]:
    yield _share("rows without a score", scored.unanswered / scored.rows, watch.quarantined)
    if not with_volume:
        return
    ratio = scored.rows / reference_rows
    most = watch.volume.value
    yield Check(
        name="volume",
        found=f"{ratio:.2g} times the reference's",
        limit=f"{1 / most:.2g} to {most:.2g}",
        reason=watch.volume.reason,
        past=not 1 / most <= ratio <= most,
    )


def _wrong(
    spec: ModelSpec, watch: Monitoring, unseen: pl.DataFrame, new: pl.DataFrame
) -> Iterator[Check]:
    """How much worse the model answers than it did on its holdout."""
    metric = spec.metrics[0]
    on_holdout, on_month = (_error(spec, watch, rows) for rows in (unseen, new))
    if on_holdout is None or on_month is None:
        return
    (before, luck_before), (now, luck_now) = on_holdout, on_month
    scale = abs(before) or 1e-9
    worse = (before - now if metric.higher_is_better else now - before) / scale
    limit = max(watch.error.value, LUCK * float(np.hypot(luck_before, luck_now)) / scale)
    yield Check(
        name=f"{metric.name} where truth is known",
        found=f"{metric.show(now)}, on its holdout {metric.show(before)}",
        limit=f"{limit:.0%} worse",
        reason=watch.error.reason,
        past=worse > limit,
    )


def _share(name: str, found: float, limit: Limit) -> Check:
    return Check(
        name=name,
        found=f"{max(found, 0):.2%}",
        limit=f"{limit.value:.2%}",
        reason=limit.reason,
        past=found > limit.value,
    )


def _error(spec: ModelSpec, watch: Monitoring, rows: pl.DataFrame) -> tuple[float, float] | None:
    """The first metric on rows with truth, and its deviation; None where it says nothing."""
    known = _with_known_truth(watch, rows)
    if len(known) < FEWEST_TRUTHS:
        return None

    def error(rows: pl.DataFrame) -> float:
        answers = rows.select(spec.answers).to_numpy()
        true, given = rows["true"].to_numpy(), answers[:, 0] if len(spec.answers) == 1 else answers
        return float(spec.metrics[0].score(true, given))

    def of_part(part: int) -> float:
        with suppress(ValueError):  # such as log loss, of rows that lack a class
            return error(mixed.gather_every(PARTS, part))
        return float("nan")

    value, mixed = error(known), known.sample(fraction=1, shuffle=True, seed=0)
    parts = np.array([of_part(part) for part in range(PARTS)])
    parts = parts[np.isfinite(parts)]
    luck = parts.std(ddof=1) / PARTS**0.5 if len(parts) > 1 else 0
    return (value, float(luck)) if np.isfinite(value) else None


def _with_known_truth(watch: Monitoring, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose truth is known, and counts, with it in the column `true`."""
    given = rows.with_columns(true=watch.truth)
    kind = given.schema["true"]
    return given.filter(
        pl.col("true").is_finite() if kind.is_float() else pl.col("true").is_not_null()
    )
