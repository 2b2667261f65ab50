"""What alarms look for in logs."""

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, load_logging_config

from flows.platform.events import DRIFT_LINE
from infra.components.observability import (
    CHAMPION_REFUSED,
    DRIFT,
    NEW_CHAMPION,
    REQUEST_FAILED,
)
from trainyard.contract.run_states import LOG_FOUND_CRASHED, LOG_TASK_GONE


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("prefect.runner._state_proposer", LOG_FOUND_CRASHED),
        ("prefect.workers.base", LOG_FOUND_CRASHED),
        ("prefect_aws.observers.ecs", LOG_TASK_GONE),
        ("flows.lifecycle.gate", NEW_CHAMPION),
        ("flows.lifecycle.serving", REQUEST_FAILED),
        ("flows.lifecycle.serving_models", CHAMPION_REFUSED),
    ],
)
def test_what_is_logged_still_has_the_words_that_the_alarms_count(
    module: str, words: tuple[str, ...]
) -> None:
    """tests/e2e/flows/test_runs_that_die.py looks at the logs of failed runs themselves."""
    package, *rest = module.split(".")
    spec = find_spec(package)  # not of the module: that would import what is above it
    assert spec
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]).joinpath(*rest).with_suffix(".py")
    lines = source.read_text().splitlines()
    assert [line for line in lines if all(word in line for word in words)]


@pytest.mark.parametrize(
    ("said", "counts"),
    [(DRIFT_LINE % ("rides", "2023-02 is longer"), True), ("no drift of rides: 2023-02", False)],
)
def test_a_line_counts_where_it_says_that_there_is_drift(said: str, counts: bool) -> None:
    config = load_logging_config(DEFAULT_LOGGING_SETTINGS_PATH)
    formatter = logging.Formatter(config["formatters"]["standard"]["format"])
    record = logging.LogRecord("prefect.task_runs", logging.WARNING, "", 0, said, None, None)
    assert all(word in formatter.format(record) for word in DRIFT) is counts
