"""Containers on Fargate."""

import json

from infra.components.fargate import Container
from tests.infra.example_stacks import stack


def test_a_container_without_an_image_names_none_that_could_start() -> None:
    assert (
        Container(image="", command=("true",)).definition("x", "g", "r")["image"] == "image-not-set"
    )


def test_a_server_has_30_seconds_to_end_and_the_worker_60() -> None:
    """A worker also hands on what it knows of its runs; Fargate allows 120."""
    seconds = {
        container["name"]: container["stopTimeout"]
        for task in stack("standard").of("ecs/taskDefinition:TaskDefinition")
        for container in json.loads(task.plain["containerDefinitions"])
        if "stopTimeout" in container
    }
    assert seconds.pop("worker") == 60
    assert set(seconds.values()) == {30}
    assert {"prefect-server", "mlflow"} <= seconds.keys()
