"""Score a month of trips with the champion."""

from mlflow import MlflowClient
from prefect import flow, task

from flows.lifecycle.scoring import Scored, score_month
from flows.lifecycle.scoring_report import report_scores
from flows.platform.address import Address
from flows.platform.artifact_store import artifact_path, local_file, sha256
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED
from flows.platform.tracking import require_server
from flows.taxi.months import Month, latest_months
from flows.taxi.source import raw_month


@flow(name="taxi-score", timeout_seconds=7200, result_serializer="json")
def taxi_score(month: Month | None = None, data: Address = "synthetic") -> None:
    """Score a month of trips with the champion; a month that it has scored already stays.

    Args:
        month: like 2023-01; without it, the newest that TLC has published by the time the run was
            scheduled for.
        data: where raw months come from, as for taxi-train.
    """
    end_killed_attempts()
    report_scores(score_trips(month or latest_months(current_run().scheduled)[1], data))


@task(task_run_name="score-{month}", **RETRIED, **PERSISTED, timeout_seconds=3600)
def score_trips(month: str, data: str) -> Scored:
    """Stream the month's trips through the champion, into the artifact store."""
    from flows.taxi.batches import batches
    from flows.taxi.spec import SPEC

    settings = load_settings()
    require_server(settings.tracking_uri)
    path = raw_month(data, month, artifact_path(settings.artifact_store))
    with local_file(path) as local:
        return score_month(
            MlflowClient(settings.tracking_uri),
            SPEC,
            month,
            str(path),
            sha256(artifact_path(str(local))),
            batches(local, str(path)),
            settings.artifact_store,
            current_run().id,
        )


if __name__ == "__main__":
    taxi_score()
