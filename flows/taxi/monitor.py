"""Compare a scored or served month of trips with the month that its model was chosen on."""

from datetime import timedelta

import polars as pl
from mlflow import MlflowClient
from prefect import flow, get_run_logger, task

from flows.lifecycle.monitored_rows import Rows
from flows.lifecycle.monitoring import Monitored, monitor_month
from flows.lifecycle.monitoring_report import report_month
from flows.lifecycle.scoring import Scored
from flows.platform.address import Address
from flows.platform.artifact_store import artifact_path, local_file, sha256
from flows.platform.contract import ContractError
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import require_server
from flows.taxi.months import Month, latest_months
from flows.taxi.source import SourceError, raw_month


@flow(name="taxi-monitor", timeout_seconds=7200, result_serializer="json")
def taxi_monitor(
    month: Month | None = None, data: Address = "synthetic", rows: Rows = "scored"
) -> None:
    """Compare a month of trips with its model's reference; past a limit, train again.

    Args:
        month: like 2023-01; without it, the newest that TLC has published by the time the run was
            scheduled for; of requests, the month before the run.
        data: where raw months come from, as for taxi-train: drop-offs that weren't known when the
            month was scored are looked up there.
        rows: the month's scored trips, or those that the served champion was asked about in it.
    """
    end_killed_attempts()
    scheduled = current_run().scheduled
    month_before = scheduled.replace(day=1) - timedelta(days=1)
    newest = latest_months(scheduled)[1] if rows == "scored" else f"{month_before:%Y-%m}"
    month = month or newest
    report_month(monitor_trips(month, data, rows), data)


@task(task_run_name="monitor-{month}", **RETRIED, **PERSISTED, **WAITS)
def monitor_trips(month: str, data: str, rows: Rows) -> Monitored:
    """Write the month's page, and say what is past its limit."""
    from flows.taxi.spec import SPEC

    settings = load_settings()
    require_server(settings.tracking_uri)
    return monitor_month(
        MlflowClient(settings.tracking_uri),
        SPEC,
        month,
        settings.artifact_store,
        current_run().id,
        lambda scored: late_durations(scored, data, settings.artifact_store),
        rows,
    )


def late_durations(scored: Scored, data: str, store: str) -> pl.DataFrame | None:
    """The month's trips with their durations, if its file is another one than was scored.

    Raises:
        ContractError: it can't be read, or has no rows.
    """
    from flows.taxi.batches import batches

    try:
        path = raw_month(data, scored.month, artifact_path(store))
    except SourceError as error:
        get_run_logger().warning("drop-offs that came later aren't known: %s", error)
        return None
    with local_file(path) as local:
        if sha256(artifact_path(str(local))) == scored.sha256:
            return None
        known = [rows for rows, _ in batches(local, str(path))]
    if not known:
        raise ContractError(f"{path}: no rows; fetch the month again")
    return pl.concat(known)


if __name__ == "__main__":
    taxi_monitor()
