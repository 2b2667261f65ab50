"""Take a champion back: the version before it is the champion again."""

from typing import Annotated

from mlflow import MlflowClient
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from flows.lifecycle import registry
from flows.platform.events import model_taken_back
from flows.platform.locks import exclusive
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, WAITS
from flows.platform.tracking import require_server


@flow(name="rollback", flow_run_name="roll back {model}", timeout_seconds=1800)
def rollback(
    model: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")],
    reason: Annotated[str, Field(min_length=1, max_length=500)],
) -> None:
    """Make `previous` the champion again, and mark the version that it replaces as rejected.

    A later run that trains the same model again doesn't promote it; a person can, by
    `trainyard model promote`.

    Args:
        model: in MLflow's registry, such as taxi-trip-duration.
        reason: why, for those who read the registry later.
    """
    summary = swap(model, reason)
    create_markdown_artifact(key=f"{model}-rollback", markdown=f"# {summary}", description=summary)


# no retries: a second swap would be another one
@task(task_run_name="swap", **PERSISTED, **WAITS)
def swap(model: str, reason: str) -> str:
    """Move the aliases; gives what happened, in a line."""
    summary = take_back(load_settings().tracking_uri, model, reason)
    get_run_logger().info("%s", summary)
    return summary


def take_back(tracking_uri: str, model: str, reason: str) -> str:
    """Roll a model back under the lock, and say so to people.

    Raises:
        RegistryError: no version was the champion before.
        LockError: the stack has no lock.
    """
    require_server(tracking_uri)
    with exclusive(registry.PROMOTION):
        removed, restored = registry.roll_back(MlflowClient(tracking_uri), model, reason)
    model_taken_back(model, removed, restored, reason)
    return f"{model} version {restored} is champion again, version {removed} is rejected: {reason}"
