"""From raw months to features: fetch, check, and fit on the training month only."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
from prefect import flow, runtime, task
from prefect.concurrency.sync import concurrency

from flows.lifecycle.holdout import Holdout, held_out, keep_holdout
from flows.platform.artifact_store import (
    artifact_path,
    read_parquet,
    sha256,
    write,
    write_parquet,
)
from flows.platform.contract import ContractError
from flows.platform.quarantine import keep_rows, report_quarantine
from flows.platform.task_options import PERSISTED, PERSISTED_BY_WORKSPACE, RETRIED, WAITS
from flows.taxi import contract
from flows.taxi.months import parse_month, quarters
from flows.taxi.report import Dataset, Part, PreparedMonth
from flows.taxi.source import raw_month


def run_name() -> str:
    """A run is called after its months, or its month."""
    given = runtime.flow_run.parameters
    first, last = given["train_months"][0], given["valid_month"]
    return f"preprocess {first if first == last else f'{first} to {last}'}"


@flow(name="preprocess", flow_run_name=run_name, **PERSISTED)
def preprocess(
    data: str,
    train_months: list[str],
    valid_month: str,
    durations: tuple[float, float],
    max_bad_share: float,
    store: str,
    workspace: str,
) -> Dataset:
    """Fetch, check and make features, which are fitted on the training months only.

    One month after the other, so that any number of them fits. A month to train and to validate on
    is prepared once and split by days.
    """
    prepared = {
        month: prepare_month(data, month, durations, max_bad_share, store, workspace)
        for month in dict.fromkeys([*train_months, valid_month])
    }
    report_bad_rows(list(prepared.values()))
    train, valid = [prepared[month] for month in train_months], prepared[valid_month]
    valid_rows, holdout = hold_out(valid, durations, store, workspace)
    if valid_month in train_months:
        early, valid = split_days(valid, valid_rows, workspace)
        train, valid_rows = [early], valid.kept
    return make_features(train, valid, valid_rows, holdout, durations, workspace)


# longer than a download may take
@task(task_run_name="prepare-{month}", **RETRIED, **PERSISTED_BY_WORKSPACE, timeout_seconds=1800)
def prepare_month(
    data: str,
    month: str,
    durations: tuple[float, float],
    max_bad_share: float,
    store: str,
    workspace: str,
) -> PreparedMonth:
    """Fetch a raw month and sort its rows into kept and quarantined ones."""
    with concurrency(["tlc-downloads"] if data == "tlc" else []):
        path = raw_month(data, month, artifact_path(store))
    checked = contract.check(contract.read_month(path), month, str(path), max_bad_share, durations)
    if checked.kept.is_empty():
        raise ContractError(
            f"{path}: none of its {checked.rows_read:,} rows can be used "
            f"({', '.join(checked.counts)}); correct the file, or choose another month"
        )
    rows = checked.kept, checked.quarantined, checked.counts
    file = keep_rows(str(path), sha256(path), *rows, workspace, month)
    course = artifact_path(workspace, "course", f"{month}.parquet")
    write_parquet(checked.course, course)
    return PreparedMonth(
        **file.model_dump(),
        month=month,
        course=str(course),
        rows_read=checked.rows_read,
        rows_kept=checked.kept.height,
    )


@task(task_run_name="report-quarantine", **WAITS)
def report_bad_rows(months: Sequence[PreparedMonth]) -> None:
    """Count the quarantined rows by month and rule, as a table in Prefect."""
    report_quarantine("taxi-quarantine", months)


@task(task_run_name="hold-out", **PERSISTED_BY_WORKSPACE, **WAITS)
def hold_out(
    valid: PreparedMonth, durations: tuple[float, float], store: str, workspace: str
) -> tuple[str, Holdout]:
    """Keep a fifth of the validation month from the search; gives the other rows' URI.

    Models are compared on trips of the contract's durations, whichever a run has asked for: one
    that has learned short trips only would win on short trips.
    """
    from flows.taxi.spec import SPEC

    rows = compared = read_parquet(artifact_path(valid.kept))
    if durations != contract.DURATIONS:
        raw = contract.read_month(artifact_path(valid.file))
        compared = contract.check(raw, valid.month, valid.file, max_bad_share=1).kept
    path = artifact_path(workspace, "search", f"{valid.month}.parquet")
    write_parquet(rows.filter(~held_out(rows)), path)
    return str(path), keep_holdout(
        compared.filter(held_out(compared)), SPEC.name, store, valid.as_seen(rows.columns)
    )


@task(task_run_name="split-days", **PERSISTED_BY_WORKSPACE, **WAITS)
def split_days(
    month: PreparedMonth, rows: str, workspace: str
) -> tuple[PreparedMonth, PreparedMonth]:
    """Split a month into its first three quarters and the rest, by days; neither has held-out rows.

    Args:
        rows: the URI of the month's kept rows that aren't held out.

    Raises:
        ContractError: one of the two has no rows.
    """
    early, late = quarters(month.month)
    border = parse_month(month.month)[0] + timedelta(days=early[1])
    course = read_parquet(artifact_path(month.course))
    # what is held out of the kept rows is so of the course's, too: the hash is of the row
    kept, course = read_parquet(artifact_path(rows)), course.filter(~held_out(course))
    is_early = pl.col("lpep_pickup_datetime") < border

    def part(days: tuple[int, int], wanted: pl.Expr) -> PreparedMonth:
        count = kept.filter(wanted).height
        made = month.model_copy(update={"part": Part(first=days[0], last=days[1], rows=count)})
        if not count:
            raise ContractError(
                f"{month.file}: no row of {made.label} can be used, and one_month trains on a "
                "month's first three quarters and validates on the rest; choose a whole month"
            )
        uris = {}
        for name, table in (("kept", kept), ("course", course)):
            path = artifact_path(workspace, "parts", f"{name}-{made.slug}.parquet")
            write_parquet(table.filter(wanted), path)
            uris[name] = str(path)
        return made.model_copy(update=uris)

    return part(early, is_early), part(late, ~is_early)


@task(task_run_name="make-features", **PERSISTED_BY_WORKSPACE, timeout_seconds=3600)
def make_features(
    train: list[PreparedMonth],
    valid: PreparedMonth,
    valid_rows: str,
    holdout: Holdout,
    durations: tuple[float, float],
    workspace: str,
) -> Dataset:
    """Fit the features on the training months, and write each month's, with its durations."""
    from flows.taxi import features, models

    rows = {month.slug: month.kept for month in train} | {valid.slug: valid_rows}
    fitted = features.TripFeatures().fit_months(
        read_parquet(artifact_path(month.kept)) for month in train
    )
    transformer = artifact_path(workspace, "features", "transformer.skops")
    write(transformer, models.dumps(fitted))
    files = []
    for name, uri in rows.items():
        trips = read_parquet(artifact_path(uri))
        table = pl.DataFrame(fitted.transform(trips), schema=features.FEATURE_NAMES)
        path = artifact_path(workspace, "features", f"{name}.parquet")
        write_parquet(table.with_columns(trips["duration"]), path)
        files.append(str(path))
    return Dataset(
        train=train,
        valid=valid,
        valid_rows=valid_rows,
        holdout=holdout,
        durations=durations,
        transformer=str(transformer),
        train_features=files[:-1],
        valid_features=files[-1],
    )
