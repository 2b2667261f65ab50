"""Score a month of card transactions with the champion."""

import hashlib
from collections.abc import Iterator

import polars as pl
from mlflow import MlflowClient
from prefect import flow, task

from flows.fraud import source
from flows.fraud.contract import Unlabelled, check
from flows.fraud.spec import ID, SPEC
from flows.lifecycle.batch import Batch
from flows.lifecycle.scoring import Month, Scored, score_month
from flows.lifecycle.scoring_report import report_scores
from flows.platform.address import Address
from flows.platform.artifact_store import artifact_path, local_file, sha256
from flows.platform.contract import ContractError
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED
from flows.platform.tracking import require_server

ROWS = 100_000


@flow(name="fraud-score", timeout_seconds=7200, result_serializer="json")
def fraud_score(data_path: Address = "synthetic", month: Month | None = None) -> None:
    """Score transactions with the champion; what it has scored already stays.

    Args:
        data_path: a CSV, a folder or an s3:// prefix with train_transaction*.csv, or synthetic;
            the labels needn't be there.
        month: of the transactions, like 2026-05; without it, the one that the run is scheduled in.
    """
    end_killed_attempts()
    report_scores(score_transactions(data_path, month or f"{current_run().scheduled:%Y-%m}"))


@task(task_run_name="score-{month}", **RETRIED, **PERSISTED, timeout_seconds=3600)
def score_transactions(data_path: str, month: str) -> Scored:
    """Stream the transactions through the champion, into the artifact store."""
    settings = load_settings()
    require_server(settings.tracking_uri)
    files = [str(path) for path in source.find_files(data_path, settings.artifact_store)]
    digests = "".join(sha256(artifact_path(file)) for file in files)
    return score_month(
        MlflowClient(settings.tracking_uri),
        SPEC,
        month,
        data_path,
        hashlib.sha256(digests.encode()).hexdigest(),
        batches(files),
        settings.artifact_store,
        current_run().id,
    )


def batches(files: list[str]) -> Iterator[Batch]:
    """The rows of CSVs; one file is in memory at a time.

    Raises:
        ContractError: a file is no such CSV, or has transactions of one before it.
    """
    seen = pl.Series(dtype=pl.Int64)
    for file in files:
        with local_file(artifact_path(file)) as local:
            good, bad, _ = check(local, file, max_bad_share=1, schema=Unlabelled)
        if twice := good[ID].is_in(seen.implode()).sum():
            raise ContractError(
                f"{file}: {twice:,} of its TransactionIDs are in another file, too; keep one"
            )
        seen.append(good[ID])
        yield Batch(good.clear(), bad)
        for rows in good.iter_slices(ROWS):
            yield Batch(rows, bad.clear())


if __name__ == "__main__":
    fraud_score()
