"""The tasks of training a fraud classifier: each wraps the work of a module beside this one.

`model` (scikit-learn, XGBoost) is imported where it is used: a run starts, and stops at bad data,
without waiting for it.
"""

import asyncio
import hashlib
from collections.abc import Sequence

import mlflow
import polars as pl
from prefect import task
from pydantic import BaseModel

from flows.fraud import contract, source
from flows.fraud.spec import FLAG, ID, OWNER, SPEC, TARGET, answer
from flows.lifecycle.holdout import Holdout, SeenData, held_out, keep_holdout, load_kept
from flows.lifecycle.tasks import LoggedModel
from flows.platform.artifact_store import (
    artifact_path,
    local_file,
    read_parquet,
    sha256,
    write_parquet,
)
from flows.platform.contract import ContractError
from flows.platform.quarantine import KeptFile, keep_rows, report_quarantine
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import TRAINING, XGBOOST, Experiment, log_pipeline, tracked_run

FEWEST = 20
"""Frauds, and honest transactions, to train on and to compare on: of fewer, luck decides."""


class Dataset(BaseModel):
    """The transactions of all files: those to train on, as Parquet, and the others."""

    train: str
    seen: SeenData
    holdout: Holdout


@task(task_run_name="find-files", **RETRIED, **PERSISTED, **WAITS)
def find_files(data_path: str, store: str) -> list[str]:
    """The CSVs that a data path names; synthetic ones are made."""
    return [str(path) for path in source.find_files(data_path, store)]


@task(task_run_name="load-data", **RETRIED | {"retries": 5}, **PERSISTED, timeout_seconds=1800)
async def load_data(file: str, max_bad_share: float, workspace: str) -> KeptFile:
    """Sort a CSV's rows into kept and quarantined ones, while other files are loaded too."""
    return await asyncio.to_thread(_load, file, max_bad_share, workspace)


def _load(file: str, max_bad_share: float, workspace: str) -> KeptFile:
    path = artifact_path(file)
    with local_file(path) as local:
        rows = contract.check(local, file, max_bad_share)
        digest = sha256(artifact_path(str(local)))
    return keep_rows(file, digest, *rows, workspace, path.stem)


@task(task_run_name="split-data", **RETRIED, **PERSISTED, **WAITS)
def split_data(data_path: str, files: Sequence[KeptFile], store: str, workspace: str) -> Dataset:
    """Hold out a fifth of the transactions, by their TransactionID, and count the quarantined."""
    report_quarantine("fraud-quarantine", files)
    rows = pl.concat(read_parquet(artifact_path(file.kept)) for file in files)
    if twice := rows.height - rows[ID].n_unique():
        raise ContractError(
            f"{data_path}: {twice:,} TransactionIDs are in two of its files; keep each in one"
        )
    digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
    first = artifact_path(files[0].file)
    uri = str(first if len(files) == 1 else first.parent)
    seen = SeenData(name="transactions", sha256=digest, uri=uri, rows=len(rows), held_out_by=[ID])
    unseen = held_out(rows.select(ID))
    parts = train, holdout = rows.filter(~unseen), rows.filter(unseen)
    if min(int((part[TARGET] == kind).sum()) for part in parts for kind in (0, 1)) < FEWEST:
        raise ContractError(
            f"{data_path}: {rows[TARGET].sum():,} of {len(rows):,} transactions are frauds; "
            f"to train and to compare, each part needs {FEWEST} of both kinds: give more"
        )
    path = artifact_path(workspace, "train.parquet")
    write_parquet(train, path)
    kept = keep_holdout(holdout, SPEC.name, store, seen)
    return Dataset(train=str(path), seen=seen, holdout=kept)


@task(task_run_name="train-xgb", **PERSISTED, timeout_seconds=3600)
def train_xgb(experiment: Experiment, dataset: Dataset, version: str, stage: str) -> LoggedModel:
    """Fit encoder and trees to a balanced sample, choose the threshold, and log all as one."""
    from flows.fraud.model import PARAMETERS, confusion, train

    rows = read_parquet(artifact_path(dataset.train))
    with tracked_run(experiment, "xgboost", data={TRAINING: [dataset.seen]}) as run_id:
        mlflow.log_params(PARAMETERS)
        model = train(rows)
        mlflow.log_metric("threshold", model.threshold)
    unseen = load_kept(dataset.holdout)
    flags = answer(model, SPEC.model_input(unseen))[:, FLAG]
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(
            experiment,
            run_id,
            model,
            SPEC.model_input(rows.head(5)),
            SPEC.trusted_types,
            ["numpy", "pandas", "polars", "scikit-learn", "skops", XGBOOST],
            {"confusion.png": confusion(unseen[TARGET].to_numpy(), flags)},
        ),
        description=f"{version} for {stage}: XGBoost on {len(rows):,} transactions, flags from a "
        f"score of {model.threshold:.3f}",
        seen=[dataset.seen],
        holdout=dataset.holdout,
        tags={"version": version, "stage": stage, "owner": OWNER},
    )
