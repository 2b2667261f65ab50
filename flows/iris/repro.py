"""DVC owns the stages: Prefect operates `dvc repro`."""

import json
from functools import partial
from pathlib import Path

import mlflow
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from flows.iris import dvc
from flows.iris.files import tags
from flows.iris.params import load_params
from flows.lifecycle.tasks import start_experiment
from flows.platform.run_info import end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.task_options import RETRIED, WAITS
from flows.platform.tracking import Experiment, tracked_run

# A second attempt asks DVC again, which knows what is done.
DVC = {**RETRIED, "retries": 1, "retry_delay_seconds": 2, "cache_policy": NO_CACHE}
METRICS = "out/metrics.json"


@flow(name="dvc-repro", timeout_seconds=3600)
def dvc_repro(fail_once: bool = False, show_metrics: bool = True) -> None:
    """Let DVC run the stages that something changed for, and push what they made.

    Args:
        fail_once: let the first try fail, to see how it is tried again.
        show_metrics: also show them as a table.
    """
    end_killed_attempts()
    experiment = start_experiment("dvc-repro", "accuracy")
    with dvc.project() as folder:
        run_dvc(folder, "fetch", "--run-cache")
        run_dvc(folder, "repro", "--pull", fail_once=fail_once)
        run_dvc(folder, "push", "--run-cache")
        if show_metrics:
            metrics_summary(folder)
        record(experiment, folder)


@task(task_run_name="dvc {command}", **DVC, timeout_seconds=1800)
def run_dvc(folder: Path, command: str, *options: str, fail_once: bool = False) -> None:
    """Run a command of DVC; its lines come into the log as it prints them."""
    context = TaskRunContext.get()
    if fail_once and context and context.task_run.run_count == 1:
        raise RuntimeError("Intentional one-time failure to demonstrate retries.")
    log = partial(get_run_logger().info, "%s")
    dvc.run(folder, load_settings().artifact_store, command, *options, log=log)


@task(task_run_name="metrics summary", cache_policy=NO_CACHE)
def metrics_summary(folder: Path) -> None:
    metrics = json.loads((folder / METRICS).read_text())
    get_run_logger().info("Metrics: %s", json.dumps(metrics))
    create_table_artifact(key="iris-metrics", table=[metrics], description="On the test rows")


@task(task_run_name="record", **DVC, **WAITS)
def record(experiment: Experiment, folder: Path) -> None:
    """A run of MLflow with parameters, metrics, and the version of each file in DVC."""
    params = load_params(folder / "params.yaml")
    with tracked_run(experiment, "dvc repro", tags(dvc.versions(folder))):
        mlflow.log_params(params.flat)
        mlflow.log_metrics(json.loads((folder / METRICS).read_text()))
