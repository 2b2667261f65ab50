"""Train trip-duration models on one month, validate on the next, stage the best one."""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, cast
from uuid import UUID

import mlflow
import polars as pl
from mlflow import MlflowClient
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from pydantic import Field

from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.staging import (
    Candidate,
    Limits,
    best_candidate,
    champion_version,
    register_champion,
    require_within_limits,
)
from flows.platform.artifact_store import (
    artifact_path,
    read,
    read_parquet,
    write,
)
from flows.platform.events import model_promoted
from flows.platform.locks import exclusive
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import (
    TRAINING,
    VALIDATION,
    Experiment,
    InputData,
    discard_runs,
    log_pipeline,
    open_experiment,
    tracked_run,
)
from flows.taxi import report
from flows.taxi.months import LaterMonth, Month, chosen_months
from flows.taxi.preprocess import preprocess
from flows.taxi.report import Dataset, LoggedModel, PreparedMonth, StagedModel, TrainedModel
from flows.taxi.source import require_plain_address

MODEL_NAME = "taxi-trip-duration"
ABOUT = (
    "Minutes that a trip of New York's green taxis takes, from its raw record as TLC publishes it. "
    "Registered by the flow taxi-train; the alias `champion` is on the version in use."
)
# What loading the logged pipeline needs. xgboost-cpu has no wheels for a Mac.
XGBOOST = {"xgboost-cpu": 'sys_platform == "linux"', "xgboost": 'sys_platform != "linux"'}
PACKAGES: list[str | Mapping[str, str]] = [
    *("numpy", "pandas", "polars", "scikit-learn", "skops"),
    XGBOOST,
]

# seconds; between its tasks, and each task has its own
FLOW_TIMEOUT = 6 * 3600
SEARCH_TIMEOUT = 4 * 3600


def run_name() -> str:
    """A flow run is called after its months."""
    parameters = runtime.flow_run.parameters
    train, valid = parameters.get("train_month"), parameters.get("valid_month")
    # the flow itself reports bad months: a run that gets no name stays Pending for good
    with contextlib.suppress(ValueError):
        train, valid = chosen_months(train, valid, runtime.flow_run.scheduled_start_time)
    return f"train {train}, validate {valid}"


@flow(
    name="taxi-train",
    flow_run_name=run_name,
    timeout_seconds=FLOW_TIMEOUT,
    result_serializer="json",
)
def taxi_train(
    data: Annotated[str, Field(pattern=r"^[^${}]+$")] = "synthetic",
    train_month: Month | None = None,
    valid_month: LaterMonth | None = None,
    num_trials: Annotated[int, Field(ge=1, le=1000)] = 20,
    max_rmse_valid: Annotated[float, Field(gt=0, lt=1e6)] = 6.5,
    max_inference_time: Annotated[float, Field(gt=0, lt=1e6)] = 20e-6,
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.2,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42,
) -> None:
    """Train trip-duration models on one month, validate on the next, stage the best one.

    Args:
        data: where raw months come from: `synthetic`, `tlc` (New York's public site), a folder,
            or an `s3://` or `https://` prefix.
        train_month: like 2023-01; without months, the two newest that TLC has published by the
            time the run was scheduled for.
        valid_month: like 2023-02; without it, the month after `train_month`.
        num_trials: how many XGBoost models the search may try.
        max_rmse_valid: a candidate's RMSE on the validation month must be below it, in minutes.
        max_inference_time: a candidate's prediction must take less, in seconds per row.
        max_bad_share: a month with a greater share of unusable rows stops the run.
        seed: of the search.
    """
    require_plain_address(data)
    settings = load_settings()
    run = current_run()
    end_killed_attempts()
    months = chosen_months(train_month, valid_month, run.scheduled)
    limits = Limits(rmse_valid=max_rmse_valid, inference_time=max_inference_time)
    workspace = str(artifact_path(settings.artifact_store, "runs", run.id))

    experiment = start_experiment(settings.tracking_uri)
    dataset = preprocess(data, months, max_bad_share, settings.artifact_store, workspace)
    baseline = train_baseline(experiment, dataset, workspace)
    trials = search_xgboost(experiment, dataset, workspace, num_trials, seed)

    best = find_best(experiment, limits)
    logged = {
        model.run_id: log_model(experiment, dataset, model)
        for model in [baseline, *trials]
        if model.run_id in (baseline.run_id, best.run_id)
    }
    require_within_limits(best, limits)
    # A gate belongs here, before anything is registered.
    staged = stage(experiment, dataset, logged[best.run_id])
    write_report(experiment, dataset, logged[baseline.run_id], logged[best.run_id], staged)


# --- tasks: each wraps the work of a module beside this one --------------------------------------
# `features` and `models` (scikit-learn, XGBoost), `search` (Optuna) and `plots` (matplotlib) are
# imported where they are used: a run starts, and stops at bad data, without waiting for them.


@task(task_run_name="start-experiment", **RETRIED, **PERSISTED, **WAITS)
def start_experiment(tracking_uri: str) -> Experiment:
    """One MLflow experiment for this flow run, named from its scheduled time."""
    experiment = open_experiment(tracking_uri, "taxi-train", current_run())
    get_run_logger().info("MLflow experiment %r: %s", experiment.name, experiment.url("rmse_valid"))
    return experiment


@task(task_run_name="train-baseline", **PERSISTED, **WAITS)
def train_baseline(experiment: Experiment, dataset: Dataset, workspace: str) -> TrainedModel:
    """The tutorial's linear model, as a run of the experiment."""
    from flows.taxi import models

    discard_runs(experiment, {"model": "linear"})
    valid = read_parquet(artifact_path(dataset.valid.kept))
    tags, data = {"model": "linear"}, _data(dataset)
    with tracked_run(experiment, "linear baseline", tags, data=data) as mlflow_run:
        mlflow.log_params(_months(dataset))
        pipeline = models.fit_baseline(read_parquet(artifact_path(dataset.train.course)))
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
    from flows.taxi.features import FEATURE_NAMES
    from flows.taxi.search import Trial, search

    logger = get_run_logger()
    discard_runs(experiment, {"model": "xgboost"})
    features = models.loads(read(artifact_path(dataset.transformer)))
    valid_trips = read_parquet(artifact_path(dataset.valid.kept))
    train, valid = (
        read_parquet(artifact_path(uri)) for uri in (dataset.train_features, dataset.valid_features)
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
        search(
            (train.select(FEATURE_NAMES).to_numpy(), train["duration"].to_numpy()),
            (valid.select(FEATURE_NAMES).to_numpy(), valid["duration"].to_numpy()),
            num_trials,
            seed,
            on_trial,
        )
    return trained


@task(task_run_name="find-best", **RETRIED, **PERSISTED, **WAITS)
def find_best(experiment: Experiment, limits: Limits) -> Candidate:
    """The best run within the limits, else the best run."""
    return best_candidate(MlflowClient(experiment.tracking_uri), experiment.id, limits)


@task(task_run_name="log-{model.name}", **RETRIED, **PERSISTED, **WAITS)
def log_model(experiment: Experiment, dataset: Dataset, model: TrainedModel) -> LoggedModel:
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
    return LoggedModel(
        trained=model, uri=uri, rmse_course=rmse_course, url=experiment.run_url(model.run_id)
    )


@task(task_run_name="stage", **RETRIED, **PERSISTED, timeout_seconds=1800)
def stage(experiment: Experiment, dataset: Dataset, model: LoggedModel) -> StagedModel:
    """Register the model with a description of where it comes from; the better one is champion."""
    description = (
        f"{current_run().scheduled:%Y-%m-%d %H:%M} UTC: {model.trained.name} of experiment "
        f"'{experiment.name}', trained on {dataset.train.month}, validated on "
        f"{dataset.valid.month}: RMSE {model.trained.rmse_valid:.3f} min, "
        f"{model.trained.inference_time:.2e} s per row"
    )
    client = MlflowClient(experiment.tracking_uri)
    with exclusive(f"promote-{MODEL_NAME}"):
        version = register_champion(
            client, MODEL_NAME, model.uri, model.trained.run_id, description, ABOUT
        )
        champion = champion_version(client, MODEL_NAME)
    staged = StagedModel(
        name=MODEL_NAME,
        version=version,
        alias=CHAMPION,
        url=experiment.model_url(MODEL_NAME, version),
        champion="" if champion in (version, None) else str(champion),
    )
    if staged.champion:
        get_run_logger().info("%s: it did better on the same data", staged.summary)
    else:
        get_run_logger().info("%s: version %s is the new champion", MODEL_NAME, version)
        model_promoted(MODEL_NAME, version, description)
    return staged


@task(task_run_name="write-report", **WAITS)
def write_report(
    experiment: Experiment,
    dataset: Dataset,
    baseline: LoggedModel,
    best: LoggedModel,
    staged: StagedModel,
) -> None:
    """The run's result as a page in Prefect."""
    links = {
        "Prefect run": current_run().url,
        "MLflow experiment": experiment.url("rmse_valid"),
        "Model": staged.url,
    }
    create_markdown_artifact(
        key="taxi-train-report",
        markdown=report.render(dataset, baseline, best, staged, links),
        description=staged.summary,
    )


def _months(dataset: Dataset) -> dict[str, str]:
    return {"train_month": dataset.train.month, "valid_month": dataset.valid.month}


def _data(dataset: Dataset) -> dict[str, InputData]:
    """What the runs of an experiment read, for MLflow."""

    def read_by(month: PreparedMonth) -> InputData:
        name = f"green_tripdata {month.month}"
        return InputData(name=name, sha256=month.sha256, uri=month.raw, rows=month.rows_read)

    return {TRAINING: read_by(dataset.train), VALIDATION: read_by(dataset.valid)}


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


if __name__ == "__main__":
    taxi_train()
