"""Which services may run."""

import json

import pytest

from trainyard.contract.readiness import Ready, Servers, note, ready

OWN = Servers(mlflow="m1", prefect="w1")


@pytest.mark.parametrize(
    ("noted", "servers", "worker", "expected"),
    [
        ({}, OWN, "w1", Ready(mlflow=False, prefect=False, worker=False)),
        (json.loads(note(OWN)), OWN, "w1", Ready(mlflow=True, prefect=True, worker=True)),
        (
            json.loads(note(OWN, registered=False)),
            OWN,
            "w1",
            Ready(mlflow=True, prefect=True, worker=False),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m2", prefect="w1"),
            "w1",
            Ready(mlflow=False, prefect=True, worker=True),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m1", prefect="w2"),
            "w2",
            Ready(mlflow=True, prefect=False, worker=False),
        ),
        (  # another database, or other passwords in it
            json.loads(note(OWN)),
            Servers(mlflow="m1", prefect="w1", contents="passwords 2"),
            "w1",
            Ready(mlflow=False, prefect=False, worker=False),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "w1",
            Ready(mlflow=False, prefect=False, worker=True),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "",
            Ready(mlflow=False, prefect=False, worker=False),
        ),
    ],
)
def test_a_service_runs_when_its_schema_and_its_api_are_there(
    noted: dict[str, object], servers: Servers, worker: str, expected: Ready
) -> None:
    assert ready(noted, servers, worker_image=worker) == expected
