"""What a month is monitored by: the rows that were scored, or the champion's logged requests."""

from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from flows.lifecycle.request_log import read_requests
from flows.lifecycle.scoring import NO_ANSWER, Scored, read_record
from flows.lifecycle.spec import ModelSpec, Monitoring
from flows.platform.artifact_store import artifact_path, read_parquet

Rows = Literal["scored", "served"]
MOST_ROWS = 500_000
"""Of a month with more, as many are compared, drawn by chance."""


class MonitoringError(ValueError):
    """A month can't be monitored: the message says why and what to do."""


@dataclass(frozen=True)
class MonthRows:
    """The rows of a month with their answers, from one version."""

    spec: ModelSpec
    """With no more columns to compare than the rows have."""
    scored: Scored
    rows: pl.DataFrame
    note: str = ""
    """What isn't compared, and why."""


def monitoring_of(spec: ModelSpec) -> Monitoring:
    if spec.monitoring is None:
        raise MonitoringError(f"{spec.name}: its ModelSpec says nothing of monitoring; add it")
    return spec.monitoring


def scored_rows(spec: ModelSpec, month: str, store: str) -> MonthRows:
    """Read a month's scores.

    Raises:
        MonitoringError: there are none.
        ArtifactStoreError: the store can't be read.
    """
    scored = read_record(store, spec.name, month)
    if scored is None:
        raise MonitoringError(f"{spec.name} has no scores of {month}: score the month first")
    return MonthRows(spec, scored, read_parquet(artifact_path(scored.scores)))


def served_rows(spec: ModelSpec, month: str, store: str) -> MonthRows:
    """Read the champion's logged requests of a month, as if the month had been scored by them.

    Raises:
        MonitoringError: there are none with an answer.
        ArtifactStoreError: the store can't be read.
    """
    requests = read_requests(store, spec.name, month, spec.answers, MOST_ROWS)
    if requests is None or requests.answered.is_empty():
        raise MonitoringError(
            f"{spec.name} has no answered requests of {month} in its log: serve it, `trainyard "
            f"serve {spec.name}` or the setting `serve` of a stack, with a log of all of them or "
            "a share"
        )
    scored = Scored(
        model=spec.name,
        version=requests.version,
        month=month,
        data="requests",
        sha256="",
        flow_run="",
        rows=requests.rows,
        quarantined={NO_ANSWER: requests.unanswered},
        scores="",
        quarantine="",
    )
    rows = requests.answered.with_columns(pl.lit(None).alias(spec.target))
    watch = monitoring_of(spec)
    columns = {
        title: column
        for title, column in watch.columns.items()
        if {*column.meta.root_names()} <= {*rows.columns}
    }
    left = [*(title for title in watch.columns if title not in columns), "volume"]
    note = f"Not compared, because requests don't have it: {', '.join(left)}."
    if requests.of_others:
        note += f" Other versions have answered {requests.of_others:,} rows, which aren't here."
    narrowed = replace(spec, monitoring=replace(watch, columns=columns))
    return MonthRows(narrowed, scored, rows, note)
