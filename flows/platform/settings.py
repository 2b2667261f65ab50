"""Where a run finds its artifact store and its MLflow: in its environment, which the stack's work
pool gives it. A shell gets the same from `. .trainyard/env`.
"""

import os
from dataclasses import dataclass

DATABASE = "TRAINYARD_FLOWS_DATABASE"
SERVE_LOG = "TRAINYARD_SERVE_LOG"


class SettingsError(RuntimeError):
    """A setting is missing or no value: the message names it and says what to do."""


@dataclass(frozen=True)
class Settings:
    """What differs between a laptop, the rehearsal and AWS."""

    artifact_store: str
    """A folder, or `s3://bucket/prefix`."""
    tracking_uri: str
    """MLflow's."""
    database: str = ""
    """The flows' own, as postgresql://user:password@host/name; empty where there is none."""
    serve_log: float = 1.0
    """The share of a served model's requests that is logged."""


def load_settings() -> Settings:
    """Read TRAINYARD_ARTIFACT_STORE, MLFLOW_TRACKING_URI and, if they are set, the others.

    Raises:
        SettingsError: one of the first two has no value; all that is missing is named at once. Or
            SERVE_LOG is no share.
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
    return Settings(store, tracking_uri, os.environ.get(DATABASE, ""), _share(SERVE_LOG))


def _share(name: str) -> float:
    given = os.environ.get(name) or "1"
    try:
        share = float(given)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise SettingsError(f"{name}={given}: write a share of the requests, 0 to 1")
    return share
