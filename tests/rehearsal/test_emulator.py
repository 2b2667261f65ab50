"""What the emulator does beyond MiniStack, seen in the containers that it starts."""

import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from infra.rehearsal.session import Session

LOGS = "/emulator"
NAP = "import time; time.sleep(300)"
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80)"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}


@dataclass
class Account:
    """The emulator's account, with a cluster and what the tests ask of it."""

    root: Any
    image: str
    cluster: str

    def client(self, service: str) -> Any:
        """A client of the account's root."""
        return self.root.client(service)

    def define(self, program: str, *, task: dict[str, Any] | None = None, **container: Any) -> str:
        """A task definition that runs a Python program; gives its ARN."""
        definition = {
            "name": "main",
            "image": self.image,
            "command": ["python", "-u", "-c", textwrap.dedent(program)],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": LOGS, "awslogs-stream-prefix": "t"},
            },
            "stopTimeout": 2,  # Python as the first process ignores SIGTERM
            **container,
        }
        made = self.client("ecs").register_task_definition(
            family="t",
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[definition],
            **(task or {}),
        )
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def start(self, definition: str, **call: Any) -> str:
        """Run a task; gives its ARN."""
        answer = self.client("ecs").run_task(
            cluster=self.cluster,
            taskDefinition=definition,
            launchType="FARGATE",
            networkConfiguration=NETWORK,
            **call,
        )
        return str(answer["tasks"][0]["taskArn"])

    def describe(self, task: str) -> dict[str, Any]:
        """A task as ECS describes it."""
        answer = self.client("ecs").describe_tasks(cluster=self.cluster, tasks=[task])
        return dict(answer["tasks"][0])

    def end(self, task: str) -> dict[str, Any]:
        """A task once it has stopped."""
        return until(lambda: (t := self.describe(task))["lastStatus"] == "STOPPED" and t)

    def log(self, task: str) -> list[str]:
        """What a task has printed."""
        stream = f"t/main/{task.rsplit('/', 1)[1]}"
        read = self.client("logs").get_log_events
        return [e["message"] for e in read(logGroupName=LOGS, logStreamName=stream)["events"]]

    def output(self, program: str, **container: Any) -> list[str]:
        """What a program prints in a task of its own."""
        task = self.start(self.define(program, **container))
        assert self.end(task)["containers"][0]["exitCode"] == 0, self.log(task)
        return until(lambda: self.log(task))


def until(seen: Callable[[], Any], seconds: float = 20) -> Any:
    """What is waited for, when it is there."""
    end = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < end, f"not seen in {seconds} s"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def account(emulator: Session) -> Iterator[Account]:
    root = boto3.Session("test", "test", region_name="us-east-1")
    root.client("logs").create_log_group(logGroupName=LOGS)
    root.client("ecs").create_cluster(clusterName="emulator")
    try:
        yield Account(root, emulator.base, "emulator")
    finally:
        root.client("ecs").delete_cluster(cluster="emulator")
        root.client("logs").delete_log_group(logGroupName=LOGS)


def test_a_service_is_found_by_its_name_in_cloud_map(account: Account) -> None:
    ecs, names = account.client("ecs"), account.client("servicediscovery")
    made = names.create_private_dns_namespace(Name="test.trainyard.internal", Vpc="vpc-1")
    namespace = names.get_operation(OperationId=made["OperationId"])["Operation"]["Targets"]
    entry = names.create_service(Name="web", NamespaceId=namespace["NAMESPACE"])["Service"]
    ecs.create_service(
        cluster=account.cluster,
        serviceName="web-service",
        taskDefinition=account.define(SERVE),
        desiredCount=2,
        launchType="FARGATE",
        networkConfiguration=NETWORK,
        serviceRegistries=[{"registryArn": entry["Arn"]}],
    )

    def running() -> dict[str, str]:
        """The service's tasks -> their addresses, once there are two."""
        arns = ecs.list_tasks(cluster=account.cluster, serviceName="web-service")["taskArns"]
        tasks = [t for t in map(account.describe, arns) if t["lastStatus"] == "RUNNING"]
        found = {
            t["taskArn"]: d["value"]
            for t in tasks
            for d in t["attachments"][0]["details"]
            if d["name"] == "privateIPv4Address"
        }
        return found if len(found) == 2 else {}

    look_up = """
        import socket, urllib.request
        _, _, addresses = socket.gethostbyname_ex("web.test.trainyard.internal")
        urllib.request.urlopen("http://web.test.trainyard.internal", timeout=5)
        print(*sorted(addresses))
    """
    try:
        first = until(running)
        assert account.output(look_up) == [" ".join(sorted(first.values()))]
        stopped = next(iter(first))
        ecs.stop_task(cluster=account.cluster, task=stopped)
        second = until(lambda: stopped not in (found := running()) and found)
        assert account.output(look_up) == [" ".join(sorted(second.values()))]
    finally:
        ecs.delete_service(cluster=account.cluster, service="web-service", force=True)
        names.delete_service(Id=entry["Id"])
        names.delete_namespace(Id=namespace["NAMESPACE"])
