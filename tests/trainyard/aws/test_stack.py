"""`make up STACK=`: the order of its steps, and that a broken one can be repeated."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from pulumi.automation import ConfigValue

from tests.trainyard.aws.fake_stack import World
from trainyard.aws.stack import backfill, deploy, down, status
from trainyard.contract.readiness import Servers
from trainyard.tools.errors import StackError

SELF_HOSTED = Servers(mlflow="m1", prefect="w1")
CLOUD = Servers(mlflow="m1")


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


def test_the_flows_database_is_made_before_a_run_can_start_and_later_stops_nothing() -> None:
    world = World(SELF_HOSTED)
    world.make_up()
    world.servers = replace(SELF_HOSTED, flows="a database")
    world.broken = "migrate-flows"
    with pytest.raises(StackError):
        world.make_up()
    assert world.make_up() == ["up", "migrate-flows", "up"]
    assert world.running == {"mlflow", "prefect", "worker"}
    assert world.make_up() == ["up"]

    first = World(replace(SELF_HOSTED, flows="a database")).make_up()
    assert first.index("migrate-flows") < first.index("deployer --register-only")


def test_a_flows_database_that_comes_back_is_given_its_new_password() -> None:
    with_database = replace(SELF_HOSTED, flows="a database")
    world = World(with_database)
    world.make_up()
    world.servers = SELF_HOSTED
    world.make_up()
    assert world.make_up() == ["up"]
    world.servers = with_database
    assert world.make_up() == ["up", "migrate-flows", "up"]
    assert world.running == {"mlflow", "prefect", "worker"}


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
    with pytest.raises(StackError, match="make deploy"):
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
    with pytest.raises(StackError):
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


def connected(world: World) -> Any:
    return lambda outputs: world


@pytest.mark.parametrize(
    ("servers", "where"), [(SELF_HOSTED, "deployer"), (CLOUD, "here --backfill")]
)
def test_a_backfill_is_told_from_where_prefect_is_reached(servers: Servers, where: str) -> None:
    world: Any = World(servers)
    world.make_up()
    world.log = []
    assert backfill(world, "{}", connected(world)) == 0
    assert world.log == [f"{where} {{}}"]


def test_a_backfill_is_waited_for_and_ends_with_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world: Any = World(SELF_HOSTED)
    world.make_up()
    backfill(world, "{}", connected(world))
    assert world.waiting == {"minutes": 24 * 60, "stops_with_us": True}
    world.interrupted = True
    assert backfill(world, "{}", connected(world)) == 130
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "stopped: the same command goes on from here"


@pytest.mark.parametrize("command", [status, deploy, lambda stack: backfill(stack, "{}")])
def test_a_stack_that_is_not_up_is_told_how_it_comes_up(command: Callable[[Any], None]) -> None:
    class Nothing:
        stack = "dev"

        def outputs(self) -> dict[str, Any]:
            return {}

    with pytest.raises(StackError, match="isn't up: `make up STACK=dev`"):
        command(Nothing())


class Removed:
    """A stack that Pulumi removes, or refuses to."""

    stack = "dev"

    def __init__(self, refused: str = ""):
        self.refused = refused

    @property
    def api(self) -> Any:
        return SimpleNamespace(get_config={"aws:region": ConfigValue("eu-central-1")}.get)

    def destroy(self) -> None:
        if self.refused:
            raise StackError(self.refused)


OURS = {"trainyard-dev-worker": "/trainyard/dev/worker", "prefect_any_1": "/trainyard/dev/flows"}
OTHERS = {
    "trainyard-dev-2-worker": "/trainyard/dev-2/worker",
    "prefect_any_2": "/trainyard/dev-2/flows",
    "prefect_any_3": "",
    "somebodys": "/trainyard/dev/worker",
}


@pytest.mark.server
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
        with suppress(StackError):
            down(stack)
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
    with pytest.raises(StackError, match=r"is removed.*Rate exceeded.*`make down STACK=dev`"):
        down(stack, refused)
