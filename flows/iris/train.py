"""Prefect owns the stages: a task each, whose result is the cached one if nothing changed."""

import hashlib
import json
from pathlib import Path

import mlflow
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE, CachePolicy

from flows.iris import files, stages
from flows.iris.files import FileVersion
from flows.iris.params import (
    PARAMS,
    PROJECT,
    Iterations,
    Regularization,
    Seed,
    Share,
    Split,
    Train,
)
from flows.iris.spec import PLACE, SPEC
from flows.lifecycle.holdout import SeenData, keep_holdout
from flows.lifecycle.tasks import APPROVAL_TIMEOUT, LoggedModel, release, start_experiment
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import Experiment, log_pipeline, tracked_run

# seconds, with the wait for a person's yes
FLOW_TIMEOUT = APPROVAL_TIMEOUT + 1800

# As DVC does it: a stage runs again if its parameters, its files or its code changed, in any run.
CODE = hashlib.sha256(Path(stages.__file__).read_bytes()).hexdigest()
CODE_POLICY = CachePolicy.from_cache_key_fn(lambda context, parameters: CODE)
STAGE = {**RETRIED, **PERSISTED, **WAITS, "cache_policy": INPUTS + TASK_SOURCE + CODE_POLICY}


@flow(name="iris-train", timeout_seconds=FLOW_TIMEOUT, result_serializer="json")
def iris_train(
    test_size: Share = PARAMS.split.test_size,
    seed: Seed = PARAMS.split.seed,
    regularization: Regularization = PARAMS.train.regularization,
    max_iter: Iterations = PARAMS.train.max_iter,
    approval: bool = False,
) -> None:
    """Train a classifier of irises by DVC's stages, and promote it if it beats the champion.

    What isn't given is taken from params.yaml.

    Args:
        test_size: the share of rows to test on.
        seed: of the split.
        regularization: of the logistic regression, the inverse of scikit-learn's C.
        max_iter: of its solver, at most.
        approval: wait for a person's yes before it is promoted.
    """
    end_killed_attempts()
    store = load_settings().artifact_store
    experiment = start_experiment("iris-train", "accuracy")
    raw = files.keep(store, PROJECT, stages.RAW)
    data = prepare(store, raw, Split(test_size=test_size, seed=seed))
    by_name = {each.path: each for each in data}
    settings = Train(regularization=regularization, max_iter=max_iter)
    model = train(store, by_name[stages.TRAIN], settings)
    metrics = evaluate(store, by_name[stages.TEST], model)
    logged = log_model(experiment, store, [raw, *data, model, metrics])
    release(PLACE, experiment, logged, approval=approval)


@task(task_run_name="prepare", **STAGE)
def prepare(store: str, raw: FileVersion, params: Split) -> list[FileVersion]:
    with files.workspace(store, raw) as folder:
        stages.prepare(folder, params)
        made = (stages.TRAIN, stages.TEST, stages.HOLDOUT)
        return [files.keep(store, folder, each) for each in made]


@task(task_run_name="train", **STAGE)
def train(store: str, rows: FileVersion, params: Train) -> FileVersion:
    with files.workspace(store, rows) as folder:
        stages.train(folder, params)
        return files.keep(store, folder, stages.MODEL)


@task(task_run_name="evaluate", **STAGE)
def evaluate(store: str, rows: FileVersion, model: FileVersion) -> FileVersion:
    with files.workspace(store, rows, model) as folder:
        stages.evaluate(folder)
        return files.keep(store, folder, stages.METRICS)


@task(task_run_name="log-model", **RETRIED, **PERSISTED, **WAITS)
def log_model(experiment: Experiment, store: str, versions: list[FileVersion]) -> LoggedModel:
    """The model and its metrics in MLflow, with the version of each file."""
    import skops.io

    with files.workspace(store, *versions) as folder:
        irises, unseen = (
            stages.read_irises(folder / each) for each in (stages.RAW, stages.HOLDOUT)
        )
        seen = SeenData(
            name="iris",
            sha256=hashlib.sha256((folder / stages.RAW).read_bytes()).hexdigest(),
            uri=stages.RAW,
            rows=len(irises),
            held_out_by=irises.columns,
        )
        model = skops.io.load(folder / stages.MODEL)
        with tracked_run(experiment, "logistic regression", files.tags(versions)) as run_id:
            mlflow.log_params(current_run().parameters)
            mlflow.log_metrics(json.loads((folder / stages.METRICS).read_text()))
    example, packages = SPEC.model_input(irises.head(5)), ["numpy", "scikit-learn", "skops"]
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(experiment, run_id, model, example, [], packages),
        description=f"Logistic regression on {len(irises) - len(unseen)} irises",
        seen=[seen],
        holdout=keep_holdout(unseen, SPEC.name, store, seen),
        tags=files.tags(versions),
    )
