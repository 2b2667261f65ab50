"""A one-off task: its log is shown meanwhile, and its failure is told."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from trainyard.aws.ecs_tasks import EcsTasks
from trainyard.tools.errors import StackError


class Client:
    """ECS and CloudWatch Logs for one task."""

    class exceptions:  # noqa: N801 (boto3's name)
        class ResourceNotFoundException(Exception):  # noqa: N818
            pass

    def __init__(self, code: int | None, lines: Sequence[str] = ("registered",)):
        self.code, self.lines, self.polls = code, lines, 0
        self.ends_after, self.stopped = 2, list[dict[str, Any]]()
        self.started: dict[str, Any] = {}

    def client(self, name: str) -> "Client":
        return self

    def run_task(self, **given: Any) -> dict[str, Any]:
        self.started = given
        return {"failures": [], "tasks": [{"taskArn": "arn:task/c/1"}]}

    def describe_tasks(self, **given: Any) -> dict[str, Any]:
        self.polls += 1
        state = "STOPPED" if self.polls > self.ends_after else "RUNNING"
        containers = [{"exitCode": self.code} if self.code is not None else {}]
        task = {"lastStatus": state, "stoppedReason": "because", "containers": containers}
        return {"tasks": [task]}

    def stop_task(self, **given: Any) -> None:
        self.stopped.append(given)
        self.ends_after = self.polls + 1

    def describe_task_definition(self, **given: Any) -> dict[str, Any]:
        options = {"awslogs-group": "group"}
        container = {"name": "deployer", "logConfiguration": {"options": options}}
        return {"taskDefinition": {"containerDefinitions": [container]}}

    def get_log_events(self, **given: Any) -> dict[str, Any]:
        """One line a poll, and the last ones when the task has stopped."""
        assert given["logStreamName"] == "deployer/deployer/1"
        if self.polls == 1:
            raise self.exceptions.ResourceNotFoundException
        at = int(given.get("nextToken", 0))
        new = self.lines[at : at + 1]
        events = [{"message": f"{line}\n"} for line in new]
        return {"events": events, "nextForwardToken": str(at + len(new))}


def tasks_of(client: Client, clock: Callable[[float], None] = lambda seconds: None) -> EcsTasks:
    made = {
        "cluster": "arn:cluster/c",
        "subnets": ["subnet-1"],
        "public_addresses": False,
        "definitions": {"deployer": "arn:definition"},
        "security_groups": {"deployer": "sg-1"},
    }
    return EcsTasks(client, made, clock)


def test_a_task_is_waited_for_and_its_log_is_shown_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, said = Client(0, ["registered", "deployed", "removed", "done"]), list[str]()
    tasks_of(client, lambda seconds: said.append(capsys.readouterr().out)).run_task(
        "deployer", ["python"]
    )
    said.append(capsys.readouterr().out)
    assert said == ["", "  | registered\n", "", "  | deployed\n  | removed\n  | done\n"]
    overrides = client.started["overrides"]["containerOverrides"]
    assert overrides == [{"name": "deployer", "command": ["python"]}]


@pytest.mark.parametrize("code", [1, None])
def test_a_task_that_fails_says_why(code: int | None) -> None:
    with pytest.raises(StackError, match="because"):
        tasks_of(Client(code)).run_task("deployer")


def interrupting(client: Client) -> Callable[[float], None]:
    """A clock: Ctrl-C comes at the second look."""

    def clock(seconds: float) -> None:
        if client.polls == 2 and not client.stopped:
            raise KeyboardInterrupt

    return clock


def test_ctrl_c_stops_a_task_that_stops_with_us_and_shows_its_last_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = Client(130, ["begun", "2023-01 begun", "the table so far", "stopped"])
    client.ends_after = 99
    with pytest.raises(KeyboardInterrupt):
        tasks_of(client, interrupting(client)).run_task("deployer", stops_with_us=True)
    (stop,) = client.stopped
    assert stop["cluster"] == "arn:cluster/c"
    assert stop["task"] == "arn:task/c/1"
    assert capsys.readouterr().out.endswith("  | the table so far\n  | stopped\n")


def test_ctrl_c_leaves_any_other_task_alone() -> None:
    client = Client(0)
    client.ends_after = 99
    with pytest.raises(KeyboardInterrupt):
        tasks_of(client, interrupting(client)).run_task("deployer")
    assert client.stopped == []


@pytest.mark.parametrize("stops", [True, False])
def test_a_task_past_its_time_is_told_and_stopped_where_it_stops_with_us(stops: bool) -> None:
    client = Client(0)
    client.ends_after = 99
    with pytest.raises(StackError, match="deployer still runs after 0 minutes"):
        tasks_of(client).run_task("deployer", minutes=0, stops_with_us=stops)
    assert bool(client.stopped) == stops
