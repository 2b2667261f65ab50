"""What the emulator does beyond MiniStack, seen in the containers that it starts."""

import json
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from trainyard.rehearsal.emulator_session import IMAGE, Session
from trainyard.tools.docker import docker

LOGS = "/emulator"
NAP = "import time; time.sleep(300)"
# Its file makes it healthy: 2 seconds after the start, until somebody removes it.
HEALTHY_LATER = "import time; time.sleep(2); open('/tmp/ok', 'w'); time.sleep(300)"
HEALTH = {"command": ["CMD", "test", "-e", "/tmp/ok"], "interval": 1, "retries": 4}  # noqa: S108
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80)"
pytestmark = [
    pytest.mark.emulator,
    pytest.mark.timeout(1200),
]  # the first test builds the emulator's image

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

    def serve(self, name: str, definition: str, **call: Any) -> None:
        """Make a service."""
        self.client("ecs").create_service(
            cluster=self.cluster,
            serviceName=name,
            taskDefinition=definition,
            launchType="FARGATE",
            networkConfiguration=NETWORK,
            **call,
        )

    def tasks_of(self, service: str) -> list[dict[str, Any]]:
        """A service's tasks that run."""
        answer = self.client("ecs").list_tasks(cluster=self.cluster, serviceName=service)
        tasks = map(self.describe, answer["taskArns"])
        return [task for task in tasks if task["lastStatus"] == "RUNNING"]

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

    def output(self, program: str, call: Any = None, **definition: Any) -> list[str]:
        """What a program prints in a task of its own."""
        task = self.start(self.define(program, **definition), **(call or {}))
        assert self.end(task)["containers"][0]["exitCode"] == 0, self.log(task)
        return until(lambda: self.log(task))


def until(seen: Callable[[], Any], seconds: float = 60) -> Any:
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


def address(task: dict[str, Any]) -> str:
    """A task's address."""
    details = {d["name"]: d["value"] for d in task["attachments"][0]["details"]}
    return details["privateIPv4Address"]


# --- credentials ----------------------------------------------------------------------------------
WHO_AM_I = """
    import botocore.session
    from botocore.exceptions import ClientError
    session = botocore.session.get_session()
    if not session.get_credentials():
        raise SystemExit(print("nobody"))
    print(session.create_client("sts").get_caller_identity()["Arn"])
    for bucket in "one", "two":
        try:
            session.create_client("s3").put_object(Bucket=bucket, Key="x", Body=b"")
            print(bucket)
        except ClientError as error:
            print(error.response["Error"]["Code"])
"""


@pytest.fixture(scope="module")
def roles(account: Account) -> Iterator[dict[str, str]]:
    """Two roles for tasks, each of which may write the bucket of its name."""
    iam, s3 = account.client("iam"), account.client("s3")
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust["Principal"] = {"Service": "ecs-tasks.amazonaws.com"}
    made = {}
    for name in ("one", "two"):
        s3.create_bucket(Bucket=name)
        write = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{name}/*"}
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="write", PolicyDocument=policy(write))
        made[name] = role["Arn"]
    yield made
    for name in made:
        iam.delete_role_policy(RoleName=name, PolicyName="write")
        iam.delete_role(RoleName=name)
        s3.delete_object(Bucket=name, Key="x")
        s3.delete_bucket(Bucket=name)


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def test_a_task_acts_as_the_role_of_its_definition(account: Account, roles: dict[str, str]) -> None:
    role = {"taskRoleArn": roles["one"]}
    arn, *written = account.output(WHO_AM_I, image=IMAGE, task=role)
    assert re.search(r":assumed-role/one/[0-9a-f-]+$", arn)
    assert written == ["one", "AccessDenied"]


def test_a_role_given_at_the_start_replaces_the_definitions(
    account: Account, roles: dict[str, str]
) -> None:
    role = {"taskRoleArn": roles["one"]}
    call = {"overrides": {"taskRoleArn": roles["two"]}}
    arn, *written = account.output(WHO_AM_I, image=IMAGE, task=role, call=call)
    assert re.search(r":assumed-role/two/[0-9a-f-]+$", arn)
    assert written == ["AccessDenied", "two"]


def test_a_task_without_a_role_is_nobody(account: Account) -> None:
    alone = [{"name": "AWS_EC2_METADATA_DISABLED", "value": "true"}]
    assert account.output(WHO_AM_I, image=IMAGE, environment=alone) == ["nobody"]


# --- containers -----------------------------------------------------------------------------------
LOOK_AROUND = """
    import os, sys
    def writable(path):
        try:
            open(path, "w")
        except OSError:
            return False
        return True
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print("arguments", *sys.argv[1:])
    print("user", os.getuid(), os.getgid())
    print("root", writable("/var/tmp/x"))  # anyone's, on a root that can be written
    print("mount", writable("/mine/x"))
    print("init", os.getpid() != 1)
    print("capabilities", int(status["CapBnd"], 16))
"""


def test_a_container_is_kept_as_its_definition_says(account: Account) -> None:
    printed = account.output(
        "",
        task={"volumes": [{"name": "mine"}]},
        entryPoint=["python", "-u", "-c", textwrap.dedent(LOOK_AROUND)],
        command=["a", "b"],
        user="1000:1001",
        readonlyRootFilesystem=True,
        mountPoints=[{"sourceVolume": "mine", "containerPath": "/mine"}],
        linuxParameters={"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    )
    assert dict(line.split(" ", 1) for line in printed) == {
        "arguments": "a b",
        "user": "1000 1001",
        "root": "False",
        "mount": "True",
        "init": "True",
        "capabilities": "0",
    }


def test_a_container_that_takes_too_much_memory_is_killed(account: Account) -> None:
    task = account.end(account.start(account.define("bytearray(200 << 20)", memory=64)))
    assert task["containers"][0]["exitCode"] == 137
    assert task["containers"][0]["reason"].startswith("OutOfMemoryError")


def test_an_image_that_cannot_be_pulled_is_said_so(account: Account) -> None:
    task = account.end(account.start(account.define(NAP, image="127.0.0.1:1/none:1")))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")


@pytest.mark.parametrize(("stop_timeout", "exit_code"), [(10, 3), (1, 137)])
def test_a_stopped_task_has_its_stop_timeout_to_end(
    account: Account, stop_timeout: int, exit_code: int
) -> None:
    program = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), sys.exit(3)))
        print("ready")
        time.sleep(300)
    """
    task = account.start(account.define(program, stopTimeout=stop_timeout))
    until(lambda: account.describe(task)["lastStatus"] == "RUNNING" and account.log(task))
    account.client("ecs").stop_task(cluster=account.cluster, task=task)
    assert account.end(task)["containers"][0]["exitCode"] == exit_code


# --- services -------------------------------------------------------------------------------------
def test_a_service_waits_for_health_and_replaces_what_loses_it(
    account: Account, emulator: Session
) -> None:
    ecs = account.client("ecs")
    account.serve("sick", account.define(NAP), desiredCount=1)

    def rollout() -> str:
        answer = ecs.describe_services(cluster=account.cluster, services=["sick"])
        return str(answer["services"][0]["deployments"][0]["rolloutState"])

    try:
        old = until(lambda: account.tasks_of("sick"))[0]["taskArn"]
        new = account.define(HEALTHY_LATER, healthCheck=HEALTH)
        ecs.update_service(cluster=account.cluster, service="sick", taskDefinition=new)
        until(lambda: rollout() == "COMPLETED")
        first = next(t for t in account.tasks_of("sick") if t["taskArn"] != old)
        assert first["healthStatus"] == "HEALTHY"
        container = first["containers"][0]["runtimeId"]
        docker("pause", container)  # which Docker calls unhealthy
        time.sleep(1)
        docker("unpause", container)
        assert account.describe(first["taskArn"])["lastStatus"] == "RUNNING"
        docker("exec", container, "rm", "/tmp/ok")  # noqa: S108
        assert account.end(first["taskArn"])["stoppedReason"] == (
            "Task failed container health checks"
        )
        until(lambda: account.tasks_of("sick"))
    finally:
        ecs.delete_service(cluster=account.cluster, service="sick", force=True)


def test_a_service_is_found_by_its_name_in_cloud_map(account: Account) -> None:
    ecs, names = account.client("ecs"), account.client("servicediscovery")
    made = names.create_private_dns_namespace(Name="test.trainyard.internal", Vpc="vpc-1")
    namespace = names.get_operation(OperationId=made["OperationId"])["Operation"]["Targets"]
    entry = names.create_service(Name="web", NamespaceId=namespace["NAMESPACE"])["Service"]
    registries = [{"registryArn": entry["Arn"]}]
    account.serve(
        "web-service", account.define(SERVE), desiredCount=2, serviceRegistries=registries
    )

    def running() -> dict[str, str]:
        """The service's tasks -> their addresses, once there are two."""
        found = {task["taskArn"]: address(task) for task in account.tasks_of("web-service")}
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


# --- events ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def heard(account: Account) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """What a queue has heard of a task, by a rule."""
    sqs, events = account.client("sqs"), account.client("events")
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    pattern = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    events.put_rule(Name="tasks", EventPattern=json.dumps(pattern))
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    events.put_targets(Rule="tasks", Targets=[{"Id": "queue", "Arn": arn["QueueArn"]}])
    kept: list[dict[str, Any]] = []

    def of(task: str) -> list[dict[str, Any]]:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        kept.extend(json.loads(m["Body"])["detail"] for m in answer.get("Messages", []))
        return [detail for detail in kept if detail["taskArn"] == task]

    yield of
    events.remove_targets(Rule="tasks", Ids=["queue"])
    events.delete_rule(Name="tasks")
    sqs.delete_queue(QueueUrl=queue)


def test_a_queue_hears_a_task_start_and_end(
    account: Account, heard: Callable[[str], list[dict[str, Any]]]
) -> None:
    task = account.start(account.define("import time; time.sleep(1); exit(3)"))
    until(lambda: any(e["lastStatus"] == "RUNNING" for e in heard(task)))
    account.end(task)
    stopped = until(lambda: [e for e in heard(task) if e["lastStatus"] == "STOPPED"], seconds=10)
    assert [(e["stopCode"], e["containers"][0]["exitCode"]) for e in stopped] == [
        ("EssentialContainerExited", 3)
    ]


def test_a_queue_hears_of_a_stopped_task_when_its_container_has_ended(
    account: Account, heard: Callable[[str], list[dict[str, Any]]]
) -> None:
    task = account.start(account.define(NAP))
    until(lambda: account.describe(task)["lastStatus"] == "RUNNING")
    account.client("ecs").stop_task(cluster=account.cluster, task=task)
    stopped = until(lambda: [e for e in heard(task) if e["lastStatus"] == "STOPPED"], seconds=10)
    assert [(e["stopCode"], e["containers"][0]["exitCode"]) for e in stopped] == [
        ("UserInitiated", 137)
    ]


def test_a_task_keeps_the_tags_of_its_start(account: Account) -> None:
    tags = [{"key": "run", "value": "1"}]
    task = account.start(account.define("pass"), tags=tags)
    answer = account.client("ecs").describe_tasks(
        cluster=account.cluster, tasks=[task], include=["TAGS"]
    )
    assert answer["tasks"][0]["tags"] == tags
    account.end(task)
