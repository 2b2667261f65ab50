"""What a stack runs on ECS beside its services: one-off tasks, and what is left of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jmespath  # type: ignore[import-untyped]

from trainyard.contract.naming import Names
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.waiting import wait_until

TASK_MINUTES = 15
# ECS gives a container 30 s to end, and takes a while to say so.
STOP_SECONDS = 90


@dataclass(frozen=True)
class EcsTasks:
    """Run a stack's one-off ECS tasks; read and write its parameters."""

    session: Any
    tasks: dict[str, Any]
    clock: Callable[[float], None] = time.sleep

    def start_task(
        self, name: str, command: Sequence[str] | None = None, *, remote_control: bool = False
    ) -> str:
        container = {"name": name.split("-")[0], "command": list(command or ())}
        answer = self.session.client("ecs").run_task(
            cluster=self.tasks["cluster"],
            taskDefinition=self.tasks["definitions"][name],
            launchType="FARGATE",
            enableExecuteCommand=remote_control,
            networkConfiguration={
                "awsvpcConfiguration": {
                    "subnets": self.tasks["subnets"],
                    "securityGroups": [self.tasks["security_groups"][name]],
                    "assignPublicIp": "ENABLED" if self.tasks["public_addresses"] else "DISABLED",
                }
            },
            overrides={"containerOverrides": [container]} if command else {},
        )
        if answer["failures"]:
            raise StackError(f"ECS doesn't start {name}: {answer['failures'][0].get('reason')}")
        return str(answer["tasks"][0]["taskArn"])

    def describe(self, arn: str) -> dict[str, Any]:
        ecs = self.session.client("ecs")
        found = ecs.describe_tasks(cluster=self.tasks["cluster"], tasks=[arn])["tasks"]
        if not found:
            raise StackError(f"ECS knows nothing of {arn} any more")
        return dict(found[0])

    def run_task(
        self,
        name: str,
        command: Sequence[str] | None = None,
        *,
        minutes: float = TASK_MINUTES,
        stops_with_us: bool = False,
    ) -> None:
        """Run a one-off task to its end; say its log meanwhile, and fail where it did.

        Args:
            minutes: how long to wait for its end.
            stops_with_us: Ctrl-C and `kill` stop it, and so does the end of that time. Without it
                the task goes on by itself, as a migration had better.

        Raises:
            StackError: it fails, or still runs then.
        """
        arn = self.start_task(name, command)
        log = self._log(name, arn)

        def look() -> dict[str, Any]:
            task = self.describe(arn)
            if not stopped(task):
                next(log)
            return task

        def wait(seconds: float) -> dict[str, Any]:
            task = wait_until(stopped, look, seconds=seconds, every=3, sleep=self.clock)
            if stopped(task):
                self.clock(3)  # its last lines come some seconds after its end
                while next(log):
                    pass
            return task

        try:
            task = wait(minutes * 60)
        except KeyboardInterrupt:
            if stops_with_us:
                self._stop(arn)
                wait(STOP_SECONDS)
            raise
        if not stopped(task):
            if stops_with_us:
                self._stop(arn)
            raise StackError(f"{name} still runs after {minutes:g} minutes: {arn}")
        code = task["containers"][0].get("exitCode")
        if code != 0:
            reason = task.get("stoppedReason") or task["containers"][0].get("reason") or "no reason"
            raise StackError(f"{name} ended with {code} ({reason}); its last lines are above")

    def _stop(self, arn: str) -> None:
        self.session.client("ecs").stop_task(
            cluster=self.tasks["cluster"], task=arn, reason="the command that started it was ended"
        )
        say(f"stopping {arn}")  # only now: it fails where the terminal is closed

    def _log(self, name: str, arn: str) -> Iterator[bool]:
        """Say what a task's log has, each time beyond the last; whether it had anything."""
        definition = self.session.client("ecs").describe_task_definition(
            taskDefinition=self.tasks["definitions"][name]
        )["taskDefinition"]["containerDefinitions"][0]
        group = definition["logConfiguration"]["options"]["awslogs-group"]
        stream = f"{definition['name']}/{definition['name']}/{arn.rsplit('/', 1)[1]}"
        logs = self.session.client("logs")
        seen: dict[str, Any] = {}
        while True:
            try:
                answer = logs.get_log_events(
                    logGroupName=group, logStreamName=stream, startFromHead=True, **seen
                )
            except logs.exceptions.ResourceNotFoundException:
                yield False  # the container hasn't begun, or never did
                continue
            seen = {"nextToken": answer["nextForwardToken"]}
            for event in answer["events"]:
                say(f"  | {event['message'].rstrip()}")
            yield bool(answer["events"])

    def read_parameter(self, name: str) -> str:
        return str(self.session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

    def read_secret(self, arn: str) -> str:
        """Read a secret; it goes no further than the environment of what needs it."""
        secrets = self.session.client("secretsmanager")
        try:
            return str(secrets.get_secret_value(SecretId=arn)["SecretString"])
        except secrets.exceptions.ClientError as error:
            raise StackError(
                f"Prefect Cloud's API key can't be read ({error}): set PREFECT_API_KEY, or let "
                f"who deploys read {arn}"
            ) from None

    def write_parameter(self, name: str, value: str) -> None:
        self.session.client("ssm").put_parameter(Name=name, Value=value, Overwrite=True)


def stopped(task: dict[str, Any]) -> bool:
    return bool(task["lastStatus"] == "STOPPED")


def aws(outputs: dict[str, Any]) -> EcsTasks:
    return EcsTasks(session_in(region_of(outputs)), outputs["tasks"])


def region_of(outputs: dict[str, Any]) -> str:
    return str(outputs["trainyard"]["work_pool"]["region"])


def session_in(region: str) -> Any:
    import boto3

    return boto3.Session(region_name=region)


def deregister(session: Any, names: Names) -> None:
    """Deregister the task definitions that log to the stack's groups: of a half-made stack too."""
    from botocore.config import Config  # type: ignore[import-untyped]

    # AWS slows down who makes hundreds of such calls.
    patient = Config(retries={"mode": "adaptive", "total_max_attempts": 20})
    ecs = session.client("ecs", config=patient)
    pages = ecs.get_paginator("list_task_definitions").paginate()
    for arn in [*pages.search("taskDefinitionArns[]")]:
        # prefect_: as Prefect's worker names them
        if arn.split("/")[-1].startswith((names(""), "prefect_")):
            found = ecs.describe_task_definition(taskDefinition=arn)
            groups = jmespath.search(
                'taskDefinition.containerDefinitions[].logConfiguration.options."awslogs-group"',
                found,
            )
            if any(group.startswith(names.log_group("")) for group in groups):
                ecs.deregister_task_definition(taskDefinition=arn)
