"""What a process of test_at_once.py does: one task of a run, once the test says go.

python -m tests.flows.lifecycle.at_once FOLDER NAME register|promote ARGUMENT
"""

import sys
import time
from pathlib import Path
from typing import Any

import mlflow
from prefect import flow

import flows.wine.spec
from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.tasks import LoggedModel, promote_if_better, register_version
from flows.platform.settings import load_settings
from flows.platform.tracking import Experiment
from tests.flows.lifecycle.models import PLACE, SPEC

register_model = mlflow.register_model


def register_later(*arguments: Any, **options: Any) -> Any:
    """What another process has time to look for before it is written."""
    time.sleep(2)
    return register_model(*arguments, **options)


@flow
def work(folder: str, name: str, what: str, argument: str) -> None:
    experiment = Experiment(id="0", name="x", tracking_uri=load_settings().tracking_uri, tags={})
    Path(folder, f"ready-{name}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    if what == "register":
        model = LoggedModel.model_validate_json(Path(argument).read_text())
        result = register_version(PLACE, experiment, model)
    else:
        measured = [Measured(name="mae", value=1)]
        verdict = promote_if_better(PLACE, experiment, argument, measured, {})
        result = verdict.model_dump_json()
    Path(folder, f"result-{name}").write_text(result)


if __name__ == "__main__":
    mlflow.register_model = register_later
    # the test's spec, where the registered model says it is
    flows.wine.spec.TESTED = SPEC  # type: ignore[attr-defined]
    work(*sys.argv[1:])
