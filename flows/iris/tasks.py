"""The stages as tasks, and the model in MLflow."""

import hashlib
import json
from pathlib import Path

import mlflow
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE, CachePolicy

from flows.iris import files, stages
from flows.iris.files import FileVersion
from flows.iris.params import Params, Split, Train
from flows.iris.spec import SPEC
from flows.lifecycle.holdout import SeenData, keep_holdout
from flows.lifecycle.tasks import LoggedModel
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import Experiment, log_pipeline, tracked_run

# As DVC does it: a stage runs again if its parameters, its files or its code changed, in any run.
CODE = hashlib.sha256(Path(stages.__file__).read_bytes()).hexdigest()
CODE_POLICY = CachePolicy.from_cache_key_fn(lambda context, parameters: CODE)
STAGE = {**RETRIED, **PERSISTED, **WAITS, "cache_policy": INPUTS + TASK_SOURCE + CODE_POLICY}


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
def log_model(
    experiment: Experiment, store: str, params: Params, versions: list[FileVersion]
) -> LoggedModel:
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
            mlflow.log_params(params.flat)
            mlflow.log_metrics(json.loads((folder / stages.METRICS).read_text()))
    example, packages = SPEC.model_input(irises.head(5)), ["numpy", "scikit-learn", "skops"]
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(experiment, run_id, model, example, [], packages),
        description=f"Logistic regression on {len(irises) - len(unseen)} irises",
        seen=[seen],
        holdout=keep_holdout(unseen, SPEC.name, store, seen),
        chosen=params.flat,
        tags=files.tags(versions),
    )
