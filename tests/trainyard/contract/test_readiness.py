"""Which services may run."""

import json
from dataclasses import replace

import pytest

from trainyard.contract.readiness import Ready, Servers, note, ready

OWN = Servers(mlflow="m1", prefect="w1")


@pytest.mark.parametrize(
    ("noted", "servers", "worker", "expected"),
    [
        ({}, OWN, "w1", Ready(mlflow=False, prefect=False, flows=False, worker=False)),
        (
            json.loads(note(OWN)),
            OWN,
            "w1",
            Ready(mlflow=True, prefect=True, flows=False, worker=True),
        ),
        (
            json.loads(note(OWN, registered=False)),
            OWN,
            "w1",
            Ready(mlflow=True, prefect=True, flows=False, worker=False),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m2", prefect="w1"),
            "w1",
            Ready(mlflow=False, prefect=True, flows=False, worker=True),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m1", prefect="w2"),
            "w2",
            Ready(mlflow=True, prefect=False, flows=False, worker=False),
        ),
        (  # flows that get a database hold back nobody
            json.loads(note(OWN)),
            replace(OWN, flows="a database"),
            "w1",
            Ready(mlflow=True, prefect=True, flows=False, worker=True),
        ),
        (
            json.loads(note(replace(OWN, flows="a database"))),
            replace(OWN, flows="a database"),
            "w1",
            Ready(mlflow=True, prefect=True, flows=True, worker=True),
        ),
        (  # another database, or other passwords in it
            json.loads(note(OWN)),
            Servers(mlflow="m1", prefect="w1", contents="passwords 2"),
            "w1",
            Ready(mlflow=False, prefect=False, flows=False, worker=False),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "w1",
            Ready(mlflow=False, prefect=False, flows=False, worker=True),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "",
            Ready(mlflow=False, prefect=False, flows=False, worker=False),
        ),
    ],
)
def test_a_service_runs_when_its_schema_and_its_api_are_there(
    noted: dict[str, object], servers: Servers, worker: str, expected: Ready
) -> None:
    assert ready(noted, servers, worker_image=worker) == expected
