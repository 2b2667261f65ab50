"""Where a run finds its artifact store and its MLflow: from the environment, else from Prefect."""

import os
from dataclasses import dataclass

from prefect.variables import Variable


class SettingsError(RuntimeError):
    """A setting is missing: the message names it and says who sets it."""


@dataclass(frozen=True)
class Settings:
    """What differs between a laptop, the rehearsal and AWS."""

    artifact_store: str
    """A folder, or `s3://bucket/prefix`."""
    tracking_uri: str
    """MLflow's."""


def load_settings() -> Settings:
    """Read TRAINYARD_ARTIFACT_STORE and MLFLOW_TRACKING_URI, else the variables of `register`.

    Raises:
        SettingsError: neither has a value; all that is missing is named at once.
    """
    found = {
        variable: os.environ.get(variable) or Variable.get(name)
        for variable, name in (
            ("TRAINYARD_ARTIFACT_STORE", "trainyard_artifact_store"),
            ("MLFLOW_TRACKING_URI", "trainyard_tracking_uri"),
        )
    }
    missing = [variable for variable, value in found.items() if not value]
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} not set, and this Prefect server has no variables of "
            "Trainyard's: start the stack with `make up`, or set them to try a flow without it"
        )
    return Settings(
        artifact_store=str(found["TRAINYARD_ARTIFACT_STORE"]),
        tracking_uri=str(found["MLFLOW_TRACKING_URI"]),
    )
