"""The tasks of training trip-duration models: each wraps the work of a module beside this one.

`features` and `models` (scikit-learn, XGBoost), `search` (Optuna) and `plots` (matplotlib) are
imported where they are used: a run starts, and stops at bad data, without waiting for them.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast
from uuid import UUID

import mlflow
import polars as pl
from mlflow import MlflowClient
from prefect import get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from flows.lifecycle.gate import Verdict
from flows.lifecycle.reference import Reference, keep_reference
from flows.lifecycle.tasks import LoggedModel
from flows.platform.artifact_store import artifact_path, local_file, read, read_parquet, write
from flows.platform.run_info import current_run
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import (
    TRAINING,
    VALIDATION,
    XGBOOST,
    Experiment,
    InputData,
    discard_runs,
    log_pipeline,
    tracked_run,
)
from flows.taxi import report
from flows.taxi.candidates import Candidate, Limits, best_candidates
from flows.taxi.report import ComparedModel, Dataset, PreparedMonth, TrainedModel

PACKAGES: list[str | Mapping[str, str]] = [
    *("numpy", "pandas", "polars", "scikit-learn", "skops"),
    XGBOOST,
]
"""What loading the logged pipeline needs."""
SEARCH_TIMEOUT = 4 * 3600  # seconds


@task(task_run_name="train-baseline", **PERSISTED, **WAITS)
def train_baseline(experiment: Experiment, dataset: Dataset, workspace: str) -> TrainedModel:
    """The tutorial's linear model, as a run of the experiment."""
    from flows.taxi import models

    discard_runs(experiment, {"model": "linear"})
    valid = read_parquet(artifact_path(dataset.valid_rows))
    tags, data = {"model": "linear"}, _data(dataset)
    with tracked_run(experiment, "linear baseline", tags, data=data) as mlflow_run:
        mlflow.log_params(_months(dataset))
        pipeline = models.fit_baseline(
            [partial(read_parquet, artifact_path(month.course)) for month in dataset.train]
        )
        return _evaluated(
            pipeline,
            models.rmse(pipeline, valid),
            valid,
            mlflow_run,
            "linear baseline",
            workspace,
        )


@task(task_run_name="search-xgboost", **PERSISTED, timeout_seconds=SEARCH_TIMEOUT)
def search_xgboost(
    experiment: Experiment,
    dataset: Dataset,
    workspace: str,
    num_trials: int,
    seed: int,
) -> list[TrainedModel]:
    """Search XGBoost's parameters: a nested run a trial; gives the trials that weren't pruned."""
    from flows.taxi import models
    from flows.taxi.matrices import Numbers, matrices
    from flows.taxi.search import Trial, search

    logger = get_run_logger()
    discard_runs(experiment, {"model": "xgboost"})
    features = models.loads(read(artifact_path(dataset.transformer)))
    valid_trips = read_parquet(artifact_path(dataset.valid_rows))

    def numbers(uri: str) -> Numbers:
        rows = read_parquet(artifact_path(uri))
        return rows.drop("duration").to_numpy(), rows["duration"].to_numpy()

    train, valid = matrices(
        [partial(numbers, uri) for uri in dataset.train_features],
        partial(numbers, dataset.valid_features),
        dataset.train_rows,
    )
    data = _data(dataset)
    trained: list[TrainedModel] = []
    progress = cast(
        "UUID",  # it is a coroutine only where the caller is one
        create_progress_artifact(
            progress=0, key="taxi-search-progress", description=f"0 of {num_trials} trials"
        ),
    )

    def on_trial(trial: Trial) -> None:
        name = f"trial {trial.number + 1}"
        state = "pruned" if trial.booster is None else "complete"
        tags = {"model": "xgboost", "trial": state}
        with tracked_run(experiment, name, tags, nested=True, data=data) as mlflow_run:
            mlflow.log_params(trial.params)
            mlflow.log_metric("rounds", trial.rounds)
            if trial.booster is not None and trial.rmse_valid is not None:
                pipeline = models.boosted_pipeline(features, trial.booster)
                trained.append(
                    _evaluated(pipeline, trial.rmse_valid, valid_trips, mlflow_run, name, workspace)
                )
        best = min((model.rmse_valid for model in trained), default=float("inf"))
        done = f"{trial.number + 1} of {num_trials} trials, best RMSE {best:.3f} min"
        logger.info("%s: %s", name, done)
        update_progress_artifact(
            progress, progress=100 * (trial.number + 1) / num_trials, description=done
        )

    with tracked_run(experiment, "xgboost search", {"model": "xgboost"}, data=data):
        mlflow.log_params(_months(dataset) | {"num_trials": num_trials, "seed": seed})
        search(train, valid, num_trials, seed, on_trial)
    return trained


@task(task_run_name="find-best", **RETRIED, **PERSISTED, **WAITS)
def find_best(experiment: Experiment, limits: Limits) -> Candidate:
    """The best run within the limits, else the best run; the best five are in the log."""
    found = best_candidates(MlflowClient(experiment.tracking_uri), experiment.id, limits)
    for each in found:
        get_run_logger().info(
            "%s: RMSE %.3f min, %.2f µs per row",
            each.name,
            each.rmse_valid,
            each.inference_time * 1e6,
        )
    return found[0]


@task(task_run_name="log-{model.name}", **RETRIED, **PERSISTED, **WAITS)
def log_model(experiment: Experiment, dataset: Dataset, model: TrainedModel) -> ComparedModel:
    """The model as one loadable pipeline, with its plots, in its run of the experiment."""
    from flows.taxi import features, models, plots

    pipeline = models.loads(read(artifact_path(model.pipeline)))
    kept, course = (
        read_parquet(artifact_path(uri)) for uri in (dataset.valid.kept, dataset.valid.course)
    )
    rmse_course = models.rmse(pipeline, course)
    uri = log_pipeline(
        experiment,
        model.run_id,
        pipeline,
        example=features.model_input(kept.head(5)),
        trusted_types=models.TRUSTED_TYPES,
        packages=PACKAGES,
        figures={
            "predicted_vs_actual.png": plots.predicted_vs_actual(pipeline, kept),
            "feature_importance.png": plots.feature_importance(pipeline, kept),
        },
    )
    client = MlflowClient(experiment.tracking_uri)
    client.log_metric(model.run_id, "rmse_course", rmse_course)
    return ComparedModel(
        trained=model, uri=uri, rmse_course=rmse_course, url=experiment.run_url(model.run_id)
    )


@task(task_run_name="write-report", **WAITS)
def write_report(
    experiment: Experiment,
    dataset: Dataset,
    baseline: ComparedModel,
    best: ComparedModel,
    verdict: Verdict,
) -> None:
    """The run's result as a page in Prefect."""
    links = {
        "Prefect run": current_run().url,
        "MLflow experiment": experiment.url("rmse_valid"),
        "Model": experiment.model_url(verdict.model, verdict.version),
    }
    create_markdown_artifact(
        key="taxi-train-report",
        markdown=report.render(dataset, baseline, best, verdict, links),
        description=verdict.summary,
    )


@task(task_run_name="keep-reference", **RETRIED, **PERSISTED, **WAITS)
def keep_reference_month(dataset: Dataset, store: str) -> Reference:
    """Keep the validation month, as scoring would read it, to compare later months with."""
    from flows.taxi.batches import batches
    from flows.taxi.spec import SPEC

    month = dataset.valid
    with local_file(artifact_path(month.file)) as local:
        name = f"green_tripdata {month.month}"
        return keep_reference(batches(local, month.file), name, SPEC.name, store)


def to_release(
    experiment: Experiment, dataset: Dataset, model: ComparedModel, reference: Reference
) -> LoggedModel:
    """What `release` has to know of a model.

    Of one month, none of whose held-out rows was trained on, there is one data set and one month.
    """
    seen = [dataset.valid.as_seen(dataset.holdout.held_out_by)]
    train, part = dataset.train, bool(dataset.valid.part)
    return LoggedModel(
        run_id=model.trained.run_id,
        uri=model.uri,
        description=report.description(dataset, model, experiment.name),
        seen=seen if part else [*(month.as_seen([]) for month in train), *seen],
        holdout=dataset.holdout,
        reference=reference,
        chosen={"train_month": train[-1].month}
        | ({} if part else {"valid_month": dataset.valid.month}),
    )


def _months(dataset: Dataset) -> dict[str, str]:
    return {"train_month": dataset.train_label, "valid_month": dataset.valid.label}


def _data(dataset: Dataset) -> dict[str, list[InputData]]:
    """What the runs of an experiment read, for MLflow."""

    def read_by(month: PreparedMonth) -> InputData:
        name = f"green_tripdata {month.label}"
        return InputData(name=name, sha256=month.sha256, uri=month.file, rows=month.rows_read)

    return {
        TRAINING: [read_by(month) for month in dataset.train],
        VALIDATION: [read_by(dataset.valid)],
    }


def _evaluated(
    pipeline: Any,
    rmse_valid: float,
    valid: pl.DataFrame,
    mlflow_run: str,
    name: str,
    workspace: str,
) -> TrainedModel:
    """Log a fitted pipeline's metrics to the active MLflow run, and keep it in the store."""
    from flows.taxi import models

    inference_time = models.inference_time(pipeline.predict, valid)
    # in microseconds: MLflow's charts show a number of seconds as 0
    mlflow.log_metrics({"rmse_valid": rmse_valid, "inference_time": inference_time * 1e6})
    path = artifact_path(workspace, "models", f"{mlflow_run}.skops")
    write(path, models.dumps(pipeline))
    return TrainedModel(
        run_id=mlflow_run,
        name=name,
        pipeline=str(path),
        rmse_valid=rmse_valid,
        inference_time=inference_time,
    )
