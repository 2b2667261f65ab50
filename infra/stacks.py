"""`make preview|up|deploy|down|status|ui STACK=`: a stack on AWS, in the right order.

Up: the stack with its new services held back, migrations, servers, `register`, the worker. Each
step finds what an earlier, killed run has done, so the answer to a broken `up` is another one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from infra.docker import DockerError
from infra.git import ROOT, GitError
from infra.images import ImageError, build
from infra.naming import OUTPUTS as OUTPUTS_PARAMETER
from infra.naming import READY, Names
from infra.readiness import Servers, note
from infra.rehearsal.session import RehearsalError, Session, missing
from infra.settings import FOLDER

NO_PULUMI = "there is no `pulumi` on PATH: https://www.pulumi.com/docs/install/"
TASK_MINUTES = 15
# The stack that lives on an emulator: its commands start one.
REHEARSAL = "rehearsal"


class StackError(Exception):
    """A step failed; the message says which, why, and what to do."""


def say(text: str) -> None:
    """Tell the user what happens now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# --- pulumi ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pulumi:
    """The `pulumi` command, for one stack."""

    stack: str
    folder: Path = FOLDER
    environment: Mapping[str, str] = field(default_factory=dict)
    log: IO[str] | None = None
    """Where its lines go; the terminal without."""

    def up(self) -> None:
        """Bring the stack to what program and settings say."""
        self._call(["up", *self._unasked()], self.log)

    def preview(self) -> None:
        """Say what an up would do, and what breaks the rules of infra/policy."""
        self._call(["preview", "--diff", "--policy-pack", str(FOLDER / "policy")], self.log)

    def destroy(self) -> None:
        """Remove the stack; with protected data in it, nothing of it."""
        state = json.loads(self.run("stack", "export"))["deployment"]
        kept = [r["urn"].split("::")[-1] for r in state.get("resources", []) if r.get("protect")]
        if kept:  # found out by `destroy` itself only when all else is gone
            raise StackError(
                f"nothing was removed: {', '.join(kept)} hold data and are protected. To keep them "
                f"and remove the rest: `pulumi --cwd infra destroy --exclude-protected --stack "
                f"{self.stack}`. To remove them too: docs/operations.md, “A stack destroyed”."
            )
        self._call(["destroy", *self._unasked()], self.log)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        found: dict[str, Any] = json.loads(self.run("stack", "output", "--json", "--show-secrets"))
        return found

    def _unasked(self) -> list[str]:
        # A person sees the preview and says yes, but where nobody looks or nothing is at stake.
        asked = self.log is None and self.stack != REHEARSAL and sys.stdin.isatty()
        return [] if asked else ["--yes", "--skip-preview"]

    def run(self, *arguments: str) -> str:
        """`pulumi ARGUMENTS`, and what it wrote."""
        return self._call(arguments, subprocess.PIPE)

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        """Run Python of ours on this machine, from the folder `code`."""
        ours = {"PYTHONPATH": str(code)}
        done = subprocess.run(  # noqa: S603
            [sys.executable, *command[1:]],
            cwd=code,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **self.environment, **environment, **ours},
        )
        if done.returncode:
            raise StackError(f"`{' '.join(command)}` failed; the reason is above")

    def _call(self, arguments: Sequence[str], output: IO[str] | int | None) -> str:
        command = ["pulumi", "--cwd", str(self.folder), *arguments, "--stack", self.stack]
        again = f"`make {'down' if arguments[0] == 'destroy' else 'up'} STACK={self.stack}`"
        with _interrupts_left_to_pulumi() as interrupted:
            try:
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdout=output,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **self.environment},
                )
            except FileNotFoundError:
                raise StackError(NO_PULUMI) from None
            with process, ThreadPoolExecutor() as threads:
                errors = threads.submit(self._pass_on, process.stderr)
                try:
                    written = process.stdout.read() if process.stdout else ""
                    process.wait()
                except KeyboardInterrupt:  # not of Ctrl-C: pulumi doesn't know
                    process.send_signal(signal.SIGINT)
                    raise
                said = errors.result()
        if process.returncode:
            advice = self._advice(said, again)
            raise StackError(f"{written[-4000:]}`{' '.join(command)}` failed{advice}")
        if interrupted:
            raise StackError("stopped" if self._passing else f"stopped; {again} goes on from here")
        return written

    @property
    def _passing(self) -> bool:
        """It is that of `make rehearse` or `make drills`, which say themselves what is left."""
        return self.stack == REHEARSAL and self.log is not None

    def _pass_on(self, errors: IO[str] | None) -> str:
        """What pulumi says of errors, shown as it comes: it may be a question."""
        said = ""
        while errors and (part := errors.read(1)):
            said += part
            print(part, end="", file=self.log or sys.stderr, flush=True)
        return said

    def _advice(self, said: str, again: str) -> str:
        if self._passing:
            return ""
        if "no stack named" in said and self.stack != REHEARSAL:
            return f": there is no such stack. `make bootstrap STACK={self.stack}` makes it."
        if "currently locked" not in said:
            return f". What it had done stays done: mend what it names and repeat {again}."
        ended = f"`pulumi --cwd infra cancel --stack {self.stack}`"
        if self.stack == REHEARSAL:
            ended = f"`make down STACK={REHEARSAL}`"
        return (
            ". Another command changes this stack, or one that was killed left its lock: the line "
            f"above says whose it is. Wait for it; if it runs no more, {ended}, then {again}."
        )


@contextmanager
def _interrupts_left_to_pulumi() -> Iterator[list[int]]:
    """Ctrl-C reaches pulumi as well, which ends what it is about. Python would kill it for that,
    and leave a locked stack with resources that its state doesn't know.
    """
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


# --- one-off tasks --------------------------------------------------------------------------------
class Aws(Protocol):
    """What is needed of AWS: tasks that end, parameters, a secret."""

    def run_task(self, name: str, command: Sequence[str] | None = None) -> None:
        """Run one of the stack's one-off tasks to its end."""

    def read_parameter(self, name: str) -> str:
        """What was noted down."""

    def write_parameter(self, name: str, value: str) -> None:
        """Note something down."""

    def read_secret(self, arn: str) -> str:
        """The secret that opens Prefect Cloud."""


@dataclass(frozen=True)
class Boto:
    """AWS itself, with the stack's `tasks` output."""

    session: Any
    tasks: dict[str, Any]
    clock: Callable[[float], None] = time.sleep

    def start_task(
        self, name: str, command: Sequence[str] | None = None, *, remote_control: bool = False
    ) -> str:
        """Start one of the stack's one-off tasks."""
        definition = self.tasks["definitions"][name]
        overrides: dict[str, Any] = {}
        if command:
            container = name.split("-")[0]
            overrides = {"containerOverrides": [{"name": container, "command": list(command)}]}
        answer = self.session.client("ecs").run_task(
            cluster=self.tasks["cluster"],
            taskDefinition=definition,
            launchType="FARGATE",
            enableExecuteCommand=remote_control,
            networkConfiguration={
                "awsvpcConfiguration": {
                    "subnets": self.tasks["subnets"],
                    "securityGroups": [self.tasks["security_groups"][name]],
                    "assignPublicIp": "ENABLED" if self.tasks["public_addresses"] else "DISABLED",
                }
            },
            overrides=overrides,
        )
        if answer["failures"]:
            raise StackError(f"ECS doesn't start {name}: {answer['failures'][0].get('reason')}")
        return str(answer["tasks"][0]["taskArn"])

    def describe(self, arn: str) -> dict[str, Any]:
        """A task as ECS sees it."""
        answer = self.session.client("ecs").describe_tasks(
            cluster=self.tasks["cluster"], tasks=[arn]
        )
        if not answer["tasks"]:
            raise StackError(f"ECS knows nothing of {arn} any more")
        task: dict[str, Any] = answer["tasks"][0]
        return task

    def run_task(self, name: str, command: Sequence[str] | None = None) -> None:
        """Run a one-off task to its end; say its log meanwhile, and fail where it did."""
        arn = self.start_task(name, command)
        log = self._log(name, arn)
        for _ in range(TASK_MINUTES * 20):
            task = self.describe(arn)
            if task["lastStatus"] == "STOPPED":
                break
            self._tell(log)
            self.clock(3)
        else:
            raise StackError(f"{name} still runs after {TASK_MINUTES} minutes: {arn}")
        self.clock(3)  # its last lines come some seconds after its end
        while self._tell(log):
            pass
        code = task["containers"][0].get("exitCode")
        if code != 0:
            reason = task.get("stoppedReason") or task["containers"][0].get("reason") or "no reason"
            raise StackError(f"{name} ended with {code} ({reason}); its last lines are above")

    @staticmethod
    def _tell(log: Iterator[list[str]]) -> bool:
        """Say what the log has by now; whether it had anything."""
        lines = next(log)
        for line in lines:
            say(f"  | {line}")
        return bool(lines)

    def _log(self, name: str, arn: str) -> Iterator[list[str]]:
        """What a task's log has, each time beyond the last."""
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
                yield []  # the container hasn't begun, or never did
                continue
            seen = {"nextToken": answer["nextForwardToken"]}
            yield [event["message"].rstrip() for event in answer["events"]]

    def read_parameter(self, name: str) -> str:
        """Read a parameter of the stack."""
        found = self.session.client("ssm").get_parameter(Name=name)
        return str(found["Parameter"]["Value"])

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
        """Overwrite a parameter of the stack."""
        self.session.client("ssm").put_parameter(Name=name, Value=value, Overwrite=True)


def aws(outputs: dict[str, Any]) -> Boto:
    """AWS, in the stack's region."""
    return Boto(_session(_region(outputs)), outputs["tasks"])


def _region(outputs: dict[str, Any]) -> str:
    return str(outputs["trainyard"]["work_pool"]["region"])


# --- commands -------------------------------------------------------------------------------------
Connect = Callable[[dict[str, Any]], Aws]
Step = Callable[[str], AbstractContextManager[object]]


@contextmanager
def told(what: str) -> Iterator[None]:
    """A step that is said as it begins."""
    say(what)
    yield


def up(pulumi: Pulumi, connect: Connect = aws, step: Step = told) -> dict[str, Any]:
    """Bring a stack up, in order, and give its outputs. What is done already is left alone."""
    names = Names(pulumi.stack)
    with step("the stack"):
        pulumi.up()
        outputs = pulumi.outputs()
    if "held_back" not in outputs or not outputs["held_back"] or not outputs["flow_image"]:
        return outputs
    cloud = connect(outputs)
    servers = Servers(**outputs["servers"])
    registered = "worker" not in outputs["held_back"]
    for server in ("mlflow", "prefect"):
        if getattr(servers, server) and server in outputs["held_back"]:
            with step(f"migrating {server}'s database"):
                cloud.run_task(f"migrate-{server}")
            registered = registered and server != "prefect"
    ready_parameter = names.parameter(READY)
    if set(outputs["held_back"]) - {"worker"}:
        cloud.write_parameter(ready_parameter, note(servers, registered=registered))
        with step("starting the servers"):
            pulumi.up()
    if not registered:
        with step("telling Prefect of the stack"):
            run_deployer(pulumi, outputs, cloud, "--register-only")
        cloud.write_parameter(ready_parameter, note(servers))
        with step("starting the worker"):
            pulumi.up()
    return pulumi.outputs()


def made(pulumi: Pulumi) -> dict[str, Any]:
    """The outputs of a stack that is up.

    Raises:
        StackError: it isn't.
    """
    outputs = pulumi.outputs()
    if "next" not in outputs:
        raise not_up(pulumi.stack)
    return outputs


def not_up(stack: str) -> StackError:
    """What to say of a stack that nobody has brought up."""
    return StackError(f"the stack {stack} isn't up: `make up STACK={stack}`")


def deploy(pulumi: Pulumi, connect: Connect = aws) -> None:
    """Register the stack, then make prefect.yaml's deployments, with the settings' flow image."""
    outputs = made(pulumi)
    if not outputs.get("flow_image"):
        raise StackError(outputs["next"])
    run_deployer(pulumi, outputs, connect(outputs))


def run_deployer(
    pulumi: Pulumi,
    outputs: dict[str, Any],
    cloud: Aws,
    *options: str,
    code: Path = ROOT,
) -> None:
    """Run infra/deployer.py where Prefect's API is reached: inside the VPC, from the flows'
    image, or here, from `code`.
    """
    parameter = Names(pulumi.stack).parameter(OUTPUTS_PARAMETER)
    command = ["python", "-m", "infra.deployer", parameter, *options]
    if outputs["servers"]["prefect"]:  # private: only who is inside the VPC reaches it
        cloud.run_task("deployer", command)
    else:
        environment = {
            "AWS_DEFAULT_REGION": _region(outputs),
            "TRAINYARD_IMAGE": outputs["flow_image"],
        }
        if not os.environ.get("PREFECT_API_KEY"):
            secret = outputs["trainyard"]["work_pool"]["api_secret"]
            environment["PREFECT_API_KEY"] = cloud.read_secret(secret)
        pulumi.run_here(command, environment, code)


def down(pulumi: Pulumi, session: Callable[[str], Any] | None = None) -> None:
    """Remove a stack, and then the task definitions that Pulumi leaves: services may go back to
    older ones, and those of runs are made by Prefect's worker.

    Args:
        session: from a region, what boto3 clients are made of.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    region = pulumi.run("config", "get", "aws:region").strip()
    pulumi.destroy()
    say("deregistering task definitions")
    try:
        deregister((session or _session)(region), Names(pulumi.stack))
    except (BotoCoreError, ClientError) as error:
        raise StackError(
            f"the stack is removed, but not all of its task definitions are deregistered: {error} "
            f"(they cost nothing; `make down STACK={pulumi.stack}` goes on from here)"
        ) from None


def _session(region: str) -> Any:
    import boto3

    return boto3.Session(region_name=region)


def deregister(session: Any, names: Names) -> None:
    """Deregister every task definition that logs to the stack's log groups.

    So it finds those of a stack that is half-made, or half-removed, and no other stack's.
    """
    from botocore.config import Config  # type: ignore[import-untyped]

    # AWS slows down who makes hundreds of such calls.
    patient = Config(retries={"mode": "adaptive", "total_max_attempts": 20})
    ecs = session.client("ecs", config=patient)
    pages = ecs.get_paginator("list_task_definitions").paginate()
    for arn in [arn for page in pages for arn in page["taskDefinitionArns"]]:
        # prefect_: as Prefect's worker names them
        if arn.split("/")[-1].startswith((names(""), "prefect_")):
            answer = ecs.describe_task_definition(taskDefinition=arn)
            groups = [
                container.get("logConfiguration", {}).get("options", {}).get("awslogs-group", "")
                for container in answer["taskDefinition"]["containerDefinitions"]
            ]
            if any(group.startswith(names.log_group("")) for group in groups):
                ecs.deregister_task_definition(taskDefinition=arn)


def status(pulumi: Pulumi) -> None:
    """Say what the stack is, and what to type next."""
    outputs = made(pulumi)
    shown = {k: v for k, v in outputs.items() if k in ("services", "held_back", "trainyard")}
    say(json.dumps(shown, indent=2))
    say(outputs["next"])


def tunnels(outputs: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The stack's private pages: name, host, port."""
    found = []
    for name, address in (
        ("MLflow", outputs["trainyard"]["tracking_uri"]),
        ("Prefect", outputs["trainyard"]["prefect_api_url"]),
    ):
        host, _, port = address.removeprefix("http://").split("/")[0].partition(":")
        if host.endswith(".trainyard.internal"):
            found.append((name, host, int(port)))
    return found


def ui(pulumi: Pulumi) -> None:
    """Open the private pages here until Ctrl-C: a task in the VPC forwards their ports."""
    outputs = made(pulumi)
    pages = tunnels(outputs) if "trainyard" in outputs else []
    if not pages:
        say("the stack has no private pages: MLflow and Prefect are elsewhere")
        return
    cloud = aws(outputs)
    say("starting the tunnel (about a minute)")
    arn = cloud.start_task("tunnel", remote_control=True)
    sessions: list[subprocess.Popen[bytes]] = []
    try:
        target = _target(cloud, arn)
        for name, host, port in pages:
            parameters = {"host": [host], "portNumber": [str(port)], "localPortNumber": [str(port)]}
            command = [
                *("aws", "ssm", "start-session", "--target", target),
                *("--document-name", "AWS-StartPortForwardingSessionToRemoteHost"),
                *("--parameters", json.dumps(parameters)),
                *("--region", _region(outputs)),
            ]
            sessions.append(subprocess.Popen(command))  # noqa: S603
            say(f"{name}: http://localhost:{port}")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except FileNotFoundError:
        raise StackError(
            "a tunnel needs the AWS CLI and its Session Manager plug-in on this machine"
        ) from None
    finally:
        for session in sessions:
            session.terminate()
        cloud.session.client("ecs").stop_task(
            cluster=cloud.tasks["cluster"], task=arn, reason="make ui has ended"
        )
        say("the tunnel is closed")


def _target(cloud: Boto, arn: str) -> str:
    """Systems Manager's name for the tunnel's container, once its agent answers."""
    for _ in range(60):
        task = cloud.describe(arn)
        container = task["containers"][0]
        agents = container.get("managedAgents", [])
        if any(agent["lastStatus"] == "RUNNING" for agent in agents):
            cluster = cloud.tasks["cluster"].rsplit("/", 1)[1]
            return f"ecs:{cluster}_{arn.rsplit('/', 1)[1]}_{container['runtimeId']}"
        if task["lastStatus"] == "STOPPED":
            raise StackError(f"the tunnel stopped: {task.get('stoppedReason')}")
        cloud.clock(3)
    raise StackError("the tunnel's agent doesn't answer after three minutes")


def rehearsal() -> Session:
    """Where the stack `rehearsal` lives; from here on this process is about it."""
    session = Session(ROOT / ".trainyard/rehearsal")
    session.alone()
    return session


def opened(stack: str, *, released: bool = False) -> Pulumi:
    """A stack's `pulumi`.

    For the rehearsal's stack its emulator is started, and the images of this clone are built,
    unless it shall run those of a release.
    """
    if stack != REHEARSAL:
        return Pulumi(stack)
    if lacking := missing():
        raise StackError(f"a rehearsal needs more: {lacking}")
    session = rehearsal()
    images = {} if released else {f"{name}Image": id_ for name, id_ in build().items()}
    session.begin(**images)
    return _on(session)


def found(stack: str) -> Pulumi:
    """A stack's `pulumi`, as the last command left it: a rehearsal's emulator has to run."""
    if stack != REHEARSAL:
        return Pulumi(stack)
    session = rehearsal()
    if not session.runs():
        raise not_up(stack)
    return _on(session)


def _on(session: Session) -> Pulumi:
    environment = {**session.environment(), **session.deploy_role()}
    os.environ.update(environment)  # boto3 finds the emulator by the same variables
    return Pulumi(REHEARSAL, session.project, environment)


def end_rehearsal() -> None:
    """`make down STACK=rehearsal`: the stack, and its emulator whatever became of the stack."""
    session, why = rehearsal(), None
    if not session.runs():
        session.stop()  # what is left of an emulator that died
        say("no rehearsal of this clone is up")
        return
    try:
        down(_on(session))
    except Exception as error:  # such as a state that can't be read
        why = error
    session.stop()
    if why:
        raise StackError(f"{why}\nThe emulator is ended all the same, with all that was in it")


def main() -> None:
    """Run one command for one stack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["preview", "up", "deploy", "down", "status", "ui"])
    parser.add_argument("stack")
    given = parser.parse_args()
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    try:
        if given.command == "preview":
            opened(given.stack).preview()
        elif given.command == "up":
            say(up(opened(given.stack))["next"])
        elif given.command == "deploy":
            deploy(found(given.stack))
        elif given.command == "status":
            status(found(given.stack))
        elif given.command == "ui":
            ui(found(given.stack))
        elif given.stack == REHEARSAL:
            end_rehearsal()
        else:
            down(Pulumi(given.stack))
    except (StackError, RehearsalError, ImageError, GitError, DockerError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
