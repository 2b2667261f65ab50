"""The smallest run that shows a stack works: what it writes to the stack's stores comes back."""

import platform
from datetime import UTC, datetime

import mlflow
import prefect
from mlflow import MlflowClient
from prefect import flow, get_run_logger, task

from flows.platform.artifact_store import artifact_path, read, write
from flows.platform.run_info import current_run
from flows.platform.settings import load_settings
from flows.platform.tracking import require_server

EXPERIMENT = "smoke"
METRIC = 0.25


@flow(name="smoke", timeout_seconds=600)
def smoke() -> None:
    """Write to the artifact store and to MLflow, and read it back."""
    settings, run = load_settings(), current_run()
    logger = get_run_logger()
    logger.info(
        "Python %s, Prefect %s, MLflow %s",
        *(platform.python_version(), prefect.__version__, mlflow.__version__),
    )
    now = datetime.now(UTC)
    logger.info(
        "scheduled for %s, started at %s: %.1f s later",
        *(f"{time:%Y-%m-%d %H:%M:%S}Z" for time in (run.scheduled, now)),
        (now - run.scheduled).total_seconds(),
    )
    path = check_artifact_store(settings.artifact_store, run.id)
    logger.info("written to the artifact store and read back: %s", path)
    tracked = check_tracking(settings.tracking_uri, run.id)
    logger.info("written to MLflow and read back: %s", tracked)


@task(retries=1, retry_delay_seconds=5, timeout_seconds=120)
def check_artifact_store(artifact_store: str, run_id: str) -> str:
    """Write an object and read it; gives where it is. (A flow may not remove anything there.)"""
    path = artifact_path(artifact_store, "smoke", run_id)
    content = f"the smoke run {run_id}".encode()
    write(path, content)
    _same(read(path), content, f"{path} holds")
    return str(path)


@task(retries=1, retry_delay_seconds=5, timeout_seconds=120)
def check_tracking(tracking_uri: str, run_id: str) -> str:
    """Log a metric and an artifact in MLflow and read them; gives the run."""
    require_server(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    # By its id: `set_experiment` would hold for every later run of this process.
    found = mlflow.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else mlflow.create_experiment(EXPERIMENT)
    tags = {"prefect.flow_run_id": run_id}
    with mlflow.start_run(experiment_id=experiment, run_name=run_id, tags=tags) as run:
        mlflow.log_metric("metric", METRIC)
        mlflow.log_text(run_id, "artifact.txt")
    logged = MlflowClient(tracking_uri).get_run(run.info.run_id)
    _same(logged.data.metrics, {"metric": METRIC}, f"MLflow's run {run.info.run_id} has metrics")
    artifact = mlflow.artifacts.load_text(f"{logged.info.artifact_uri}/artifact.txt")
    _same(artifact, run_id, f"MLflow's artifact {logged.info.artifact_uri}/artifact.txt holds")
    return f"run {run.info.run_id} of the experiment {EXPERIMENT}"


def _same(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise RuntimeError(f"{what} {found!r}, and {wanted!r} was written")
