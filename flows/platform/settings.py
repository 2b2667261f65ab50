"""Where a run finds its artifact store and its MLflow: in its environment, which the stack's work
pool gives it. A shell gets the same from `. .trainyard/env`.
"""

import os
from dataclasses import dataclass

DATABASE = "TRAINYARD_FLOWS_DATABASE"


class SettingsError(RuntimeError):
    """A setting is missing: the message names it and says who sets it."""


@dataclass(frozen=True)
class Settings:
    """What differs between a laptop, the rehearsal and AWS."""

    artifact_store: str
    """A folder, or `s3://bucket/prefix`."""
    tracking_uri: str
    """MLflow's."""
    database: str = ""
    """The flows' own, as postgresql://user:password@host/name; empty where there is none."""


def load_settings() -> Settings:
    """Read TRAINYARD_ARTIFACT_STORE, MLFLOW_TRACKING_URI and, if it is set, DATABASE.

    Raises:
        SettingsError: one of the first two has no value; all that is missing is named at once.
    """
    names = ("TRAINYARD_ARTIFACT_STORE", "MLFLOW_TRACKING_URI")
    store, tracking_uri = (os.environ.get(name, "") for name in names)
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} not set: runs of a stack's work pool have them, which "
            "`make deploy` registers. In a shell, start the stack with `make up` and load its "
            "environment with `. .trainyard/env`"
        )
    return Settings(store, tracking_uri, os.environ.get(DATABASE, ""))
