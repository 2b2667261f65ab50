"""`make up STACK=`: the order of its steps, and that a broken one can be repeated."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from infra import stacks
from infra.readiness import Servers, ready
from infra.rehearsal.session import RehearsalError, Session

SELF_HOSTED = Servers(mlflow="m1", prefect="w1")
CLOUD = Servers(mlflow="m1")


class World:
    """A stack, its parameter and its tasks: as much of AWS and Pulumi as `up` sees."""

    def __init__(self, servers: Servers, *, image: str = "f1"):
        self.servers, self.image = servers, image
        self.stack = "dev"
        self.noted: dict[str, Any] = {}
        self.parameters: dict[str, str] = {}
        self.log: list[str] = []
        self.running: set[str] = set()
        self.broken: str | None = None

    # pulumi
    def up(self) -> None:
        self._do("up")
        may = ready(self.noted, self.servers, worker_image="w1" if self.image else "")
        ours = {"mlflow"} | ({"prefect"} if self.servers.prefect else set())
        self.running = {name for name in ours | {"worker"} if getattr(may, name)}
        self.held = sorted((ours | {"worker"}) - self.running)

    def outputs(self) -> dict[str, Any]:
        return {
            "held_back": self.held,
            "flow_image": self.image,
            "servers": vars(self.servers),
            "next": "make deploy",
            "tasks": {},
            "trainyard": OUTPUTS,
        }

    # aws
    def run_task(self, name: str, command: Sequence[str] | None = None) -> None:
        self._do(" ".join([name, *(command or [])[-1:]]))
        if name == "deployer":
            assert "prefect" in self.running, "registered before the server runs"

    def write_parameter(self, name: str, value: str) -> None:
        self.parameters[name.removeprefix("/trainyard/dev/")] = value
        self.noted = json.loads(self.parameters.get("ready", "{}"))

    def read_secret(self, arn: str) -> str:
        assert arn == OUTPUTS["work_pool"]["api_secret"]
        return "pnu_kept"

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        assert environment["TRAINYARD_IMAGE"] == self.image
        assert environment.get("PREFECT_API_KEY") == (
            None if "PREFECT_API_KEY" in os.environ else "pnu_kept"
        )
        assert command[3] == "/trainyard/dev/outputs"
        assert (code / "infra/deployer.py").exists()
        self._do(" ".join(["here", *command[4:]]))

    def _do(self, step: str) -> None:
        if step == self.broken:
            self.broken = None
            raise stacks.StackError(step)
        self.log.append(step)

    def make_up(self) -> list[str]:
        self.log = []
        stacks.up(self, connect=lambda outputs: self)  # type: ignore[arg-type]
        return self.log

    def make_deploy(self) -> list[str]:
        self.log = []
        stacks.deploy(self, connect=lambda outputs: self)  # type: ignore[arg-type]
        return self.log


OUTPUTS: dict[str, Any] = {
    "stack": "dev",
    "prefect_api_url": "https://api.prefect.cloud/api",
    "tracking_uri": "http://mlflow.dev.trainyard.internal:5000",
    "artifact_store": "s3://bucket/flows",
    "code_dir": "/app",
    "work_pool": {
        "type": "ecs",
        "name": "trainyard-dev",
        "region": "eu-central-1",
        "cluster_arn": "arn",
        "vpc_id": "vpc-1",
        "subnet_ids": ["subnet-1"],
        "security_group_ids": ["sg-1"],
        "assign_public_ip": True,
        "capacity_provider": "FARGATE",
        "cpu_architecture": "X86_64",
        "execution_role_arn": "arn",
        "task_role_arn": "arn",
        "log_group": "group",
        "queue_name": "queue",
        "environment": {},
        "secrets": {},
        "api_secret_variable": "PREFECT_API_KEY",
        "api_secret": "arn",
    },
}


def test_a_stack_with_its_own_servers_comes_up_in_order() -> None:
    world = World(SELF_HOSTED)
    assert world.make_up() == [
        "up",
        "migrate-mlflow",
        "migrate-prefect",
        "up",
        "deployer --register-only",
        "up",
    ]
    assert world.running == {"mlflow", "prefect", "worker"}


def test_with_prefect_cloud_this_machine_registers() -> None:
    world = World(CLOUD)
    assert world.make_up() == ["up", "migrate-mlflow", "up", "here --register-only", "up"]
    assert world.running == {"mlflow", "worker"}


def test_prefect_clouds_key_comes_from_secrets_manager_unless_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for given in (None, "pnu_mine"):
        if given:
            monkeypatch.setenv("PREFECT_API_KEY", given)
        else:
            monkeypatch.delenv("PREFECT_API_KEY", raising=False)
        world = World(CLOUD)
        world.make_up()
        assert world.make_deploy() == ["here"]


def test_flows_are_deployed_from_where_prefect_is_reached() -> None:
    for servers, step in ((CLOUD, "here"), (SELF_HOSTED, "deployer /trainyard/dev/outputs")):
        world = World(servers)
        world.make_up()
        assert world.make_deploy() == [step]


def test_there_is_nothing_to_deploy_before_an_image() -> None:
    world = World(Servers(), image="")
    world.make_up()
    with pytest.raises(stacks.StackError, match="make deploy"):
        world.make_deploy()


@pytest.mark.parametrize("servers", [SELF_HOSTED, CLOUD])
def test_a_second_up_is_one_up(servers: Servers) -> None:
    world = World(servers)
    world.make_up()
    assert world.make_up() == ["up"]


@pytest.mark.parametrize("step", ["migrate-mlflow", "migrate-prefect", "deployer --register-only"])
def test_an_up_that_broke_is_finished_by_the_next(step: str) -> None:
    world = World(SELF_HOSTED)
    world.broken = step
    with pytest.raises(stacks.StackError):
        world.make_up()
    world.make_up()
    assert world.running == {"mlflow", "prefect", "worker"}


def test_a_stack_without_images_stays_held_back() -> None:
    world = World(Servers(), image="")
    assert world.make_up() == ["up"]
    assert world.running == set()


def test_a_new_mlflow_is_migrated_and_nothing_else_stops() -> None:
    world = World(SELF_HOSTED)
    world.make_up()
    world.servers = Servers(mlflow="m2", prefect="w1")
    assert world.make_up() == ["up", "migrate-mlflow", "up"]
    assert world.running == {"mlflow", "prefect", "worker"}


class Removed:
    """A stack that Pulumi removes, or refuses to."""

    stack = "dev"

    def __init__(self, refused: str = ""):
        self.refused = refused

    def run(self, *arguments: str) -> str:
        assert arguments == ("config", "get", "aws:region")
        return "eu-central-1\n"

    def destroy(self) -> None:
        if self.refused:
            raise stacks.StackError(self.refused)


OURS = {"trainyard-dev-worker": "/trainyard/dev/worker", "prefect_any_1": "/trainyard/dev/flows"}
OTHERS = {
    "trainyard-dev-2-worker": "/trainyard/dev-2/worker",
    "prefect_any_2": "/trainyard/dev-2/flows",
    "prefect_any_3": "",
    "somebodys": "/trainyard/dev/worker",
}


def test_a_stack_that_goes_takes_its_task_definitions_along(s3: str) -> None:
    ecs = boto3.client("ecs", region_name="eu-central-1")
    for family, group in [*OURS.items(), *OURS.items(), *OTHERS.items()]:
        container: Any = {"name": "prefect", "image": "flow"}
        if group:
            container["logConfiguration"] = {
                "logDriver": "awslogs",
                "options": {"awslogs-group": group},
            }
        ecs.register_task_definition(family=family, containerDefinitions=[container])

    def left_by(stack: Any) -> set[str]:
        with suppress(stacks.StackError):
            stacks.down(stack)
        found = ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"]
        families = {arn.split("/")[-1].split(":")[0] for arn in found}
        return families & (OURS.keys() | OTHERS.keys())

    assert left_by(Removed(refused="nothing was removed")) == OURS.keys() | OTHERS.keys()
    assert left_by(Removed()) == OTHERS.keys()


def test_task_definitions_that_stay_are_told_with_what_to_do() -> None:
    def refused(_: str) -> Any:
        error = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
        raise ClientError(error, "ListTaskDefinitions")  # type: ignore[arg-type]

    stack: Any = Removed()
    with pytest.raises(
        stacks.StackError, match=r"is removed.*Rate exceeded.*`make down STACK=dev`"
    ):
        stacks.down(stack, refused)


def test_private_pages_are_those_in_the_stacks_own_zone() -> None:
    pages = stacks.tunnels({"trainyard": OUTPUTS})
    assert pages == [("MLflow", "mlflow.dev.trainyard.internal", 5000)]


def test_a_missing_pulumi_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(stacks.StackError, match=r"pulumi\.com"):
        stacks.Pulumi("dev").up()


@pytest.mark.parametrize("command", [stacks.status, stacks.deploy, stacks.ui])
def test_a_stack_that_is_not_up_is_told_how_it_comes_up(command: Callable[[Any], None]) -> None:
    class Nothing:
        stack = "dev"

        def outputs(self) -> dict[str, Any]:
            return {}

    with pytest.raises(stacks.StackError, match="isn't up: `make up STACK=dev`"):
        command(Nothing())


def failing_pulumi(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    program = folder / "pulumi"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_stack_that_was_never_made_is_told_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_pulumi(tmp_path, monkeypatch, "error: no stack named dev found")
    with pytest.raises(stacks.StackError, match="`make bootstrap STACK=dev`"):
        stacks.status(stacks.Pulumi("dev"))


# --- the stack on an emulator ---------------------------------------------------------------------
@pytest.fixture
def rehearsal(shell: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A clone whose rehearsal is up, and may not be begun; gives what is done with it."""
    done = list[str]()

    def begin(*_: Any) -> None:
        raise AssertionError("an emulator is started, or images are built")

    monkeypatch.setattr(stacks, "ROOT", tmp_path)
    monkeypatch.setattr(stacks, "missing", lambda: None)
    monkeypatch.setattr(stacks, "build", begin)
    monkeypatch.setattr(Session, "start", begin)
    monkeypatch.setattr(Session, "runs", lambda _: True)
    monkeypatch.setattr(Session, "stop", lambda _: done.append("stop"))
    monkeypatch.setattr(Session, "deploy_role", lambda _: {"AWS_ACCESS_KEY_ID": "role"})
    monkeypatch.setattr(stacks, "down", lambda pulumi: done.append(f"destroy {pulumi.stack}"))
    return done


def make(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `make COMMAND STACK=rehearsal` fails with."""
    monkeypatch.setattr("sys.argv", ["stacks", command, "rehearsal"])
    try:
        stacks.main()
    except SystemExit as failed:
        return str(failed.code)
    return ""


def test_a_rehearsal_is_ended_without_being_begun(
    rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("down", monkeypatch) == ""
    assert rehearsal == ["destroy rehearsal", "stop"]


def test_where_no_rehearsal_is_up_there_is_nothing_to_end(
    rehearsal: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "runs", lambda _: False)
    assert make("down", monkeypatch) == ""
    assert "destroy rehearsal" not in rehearsal
    assert "no rehearsal of this clone is up" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["deploy_role", "destroy"])
def test_a_rehearsal_whose_state_is_broken_ends_with_its_emulator(
    broken: str, rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> Any:
        raise RehearsalError("the state can't be read")

    if broken == "destroy":
        monkeypatch.setattr(stacks, "down", fail)
    else:
        monkeypatch.setattr(Session, "deploy_role", fail)
    said = make("down", monkeypatch)
    assert "the state can't be read" in said
    assert "ended all the same" in said
    assert rehearsal == ["stop"]


@pytest.mark.parametrize("command", ["status", "deploy", "ui"])
def test_what_looks_at_a_rehearsal_starts_none(
    command: str, rehearsal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "runs", lambda _: False)
    assert "`make up STACK=rehearsal`" in make(command, monkeypatch)
    assert rehearsal == []


def test_a_rehearsals_lock_goes_with_its_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_pulumi(tmp_path, monkeypatch, "error: the stack is currently locked by 1 lock(s)")
    with pytest.raises(stacks.StackError) as failed:
        stacks.Pulumi("rehearsal", tmp_path).up()
    assert "`make down STACK=rehearsal`" in str(failed.value)
    assert "pulumi --cwd infra cancel" not in str(failed.value)
    # A stack of `make rehearse` is removed by then: nothing can be repeated.
    with (tmp_path / "log").open("w") as log, pytest.raises(stacks.StackError) as failed:
        stacks.Pulumi("rehearsal", tmp_path, log=log).up()
    assert "make" not in str(failed.value)


# --- one-off tasks --------------------------------------------------------------------------------
class Client:
    """ECS and CloudWatch Logs for one task."""

    class exceptions:  # noqa: N801 (boto3's name)
        class ResourceNotFoundException(Exception):  # noqa: N818
            pass

    def __init__(self, code: int | None, lines: Sequence[str] = ("registered",)):
        self.code, self.lines, self.polls = code, lines, 0
        self.started: dict[str, Any] = {}

    def client(self, name: str) -> "Client":
        return self

    def run_task(self, **given: Any) -> dict[str, Any]:
        self.started = given
        return {"failures": [], "tasks": [{"taskArn": "arn:task/c/1"}]}

    def describe_tasks(self, **given: Any) -> dict[str, Any]:
        self.polls += 1
        state = "STOPPED" if self.polls > 2 else "RUNNING"
        containers = [{"exitCode": self.code} if self.code is not None else {}]
        task = {"lastStatus": state, "stoppedReason": "because", "containers": containers}
        return {"tasks": [task]}

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


def boto(client: Client, clock: Callable[[float], None] = lambda seconds: None) -> stacks.Boto:
    tasks = {
        "cluster": "arn:cluster/c",
        "subnets": ["subnet-1"],
        "public_addresses": False,
        "definitions": {"deployer": "arn:definition"},
        "security_groups": {"deployer": "sg-1"},
    }
    return stacks.Boto(client, tasks, clock)


def test_a_task_is_waited_for_and_its_log_is_shown_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, said = Client(0, ["registered", "deployed", "removed", "done"]), list[str]()
    boto(client, lambda seconds: said.append(capsys.readouterr().out)).run_task(
        "deployer", ["python"]
    )
    said.append(capsys.readouterr().out)
    assert said == ["", "  | registered\n", "", "  | deployed\n  | removed\n  | done\n"]
    overrides = client.started["overrides"]["containerOverrides"]
    assert overrides == [{"name": "deployer", "command": ["python"]}]


@pytest.mark.parametrize("code", [1, None])
def test_a_task_that_fails_says_why(code: int | None) -> None:
    with pytest.raises(stacks.StackError, match="because"):
        boto(Client(code)).run_task("deployer")
