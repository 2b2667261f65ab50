"""`make ui`: which pages of a stack only its VPC reaches."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainyard.aws.fake_stack import OUTPUTS
from trainyard.aws.tunnel import _target, tunnels, ui
from trainyard.tools.errors import StackError


def test_private_pages_are_those_in_the_stacks_own_zone() -> None:
    pages = tunnels({"trainyard": OUTPUTS})
    assert pages == [("MLflow", "mlflow.dev.trainyard.internal", 5000)]


def test_a_stack_that_is_not_up_is_told_how_it_comes_up() -> None:
    class Nothing:
        stack = "dev"

        def outputs(self) -> dict[str, Any]:
            return {}

    stack: Any = Nothing()
    with pytest.raises(StackError, match="isn't up: `make up STACK=dev`"):
        ui(stack)


def test_the_tunnels_container_is_named_once_its_agent_answers() -> None:
    agent = {"lastStatus": "PENDING"}
    task = {
        "lastStatus": "RUNNING",
        "containers": [{"runtimeId": "1-2", "managedAgents": [agent]}],
    }
    cloud: Any = SimpleNamespace(
        tasks={"cluster": "arn:cluster/c"},
        describe=lambda arn: task,
        clock=lambda seconds: agent.update(lastStatus="RUNNING"),
    )
    assert _target(cloud, "arn:task/c/7") == "ecs:c_7_1-2"
    task |= {"lastStatus": "STOPPED", "stoppedReason": "no room"}
    with pytest.raises(StackError, match="the tunnel stopped: no room"):
        _target(cloud, "arn:task/c/7")
