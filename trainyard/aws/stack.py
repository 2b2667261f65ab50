"""Operating a stack on AWS: `make up|deploy|down|status STACK=`, each step in the right order.

Up: the stack with its new services held back, migrations, servers, `register`, the worker. Each
step finds what an earlier, killed run has done, so the answer to a broken `up` is another one.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from trainyard.aws.ecs_tasks import EcsTasks, aws, deregister, region_of, session_in
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import OUTPUTS, READY, Names
from trainyard.contract.readiness import Servers, note
from trainyard.paths import REPO
from trainyard.tools.console import say
from trainyard.tools.errors import StackError

# A task that starts runs needn't outlive the day: the same command goes on.
BACKFILL_MINUTES = 24 * 60
# Outputs that `status` shows. The owner's DNS points *.serveDomain at `load_balancer`.
SHOWN = ("services", "served", "load_balancer", "held_back", "trainyard")
# What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 130

Connect = Callable[[dict[str, Any]], EcsTasks]
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
    for server in ("mlflow", "prefect", "flows"):
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
    """The outputs of a stack, which has to be up."""
    outputs = pulumi.outputs()
    if "next" not in outputs:
        raise not_up(pulumi.stack)
    return outputs


def not_up(stack: str) -> StackError:
    return StackError(f"the stack {stack} isn't up: `make up STACK={stack}`")


def deploy(pulumi: Pulumi, connect: Connect = aws) -> None:
    """Register the stack, then make prefect.yaml's deployments, with the settings' flow image."""
    outputs = made(pulumi)
    if not outputs.get("flow_image"):
        raise StackError(outputs["next"])
    run_deployer(pulumi, outputs, connect(outputs))


def backfill(pulumi: Pulumi, request: str, connect: Connect = aws) -> int:
    """Run a deployment for many months, told from where Prefect is reached; gives the exit code.

    Args:
        request: a Backfill, in JSON.
    """
    outputs = made(pulumi)
    if not outputs.get("flow_image"):
        raise StackError(outputs["next"])
    cloud, waiting = connect(outputs), {"minutes": BACKFILL_MINUTES, "stops_with_us": True}
    try:
        run_deployer(pulumi, outputs, cloud, "--backfill", request, waiting=waiting)
    except KeyboardInterrupt:
        say("stopped: the same command goes on from here")
        return INTERRUPTED
    return 0


def run_deployer(
    pulumi: Pulumi,
    outputs: dict[str, Any],
    cloud: EcsTasks,
    *options: str,
    code: Path = REPO,
    waiting: Mapping[str, Any] | None = None,
) -> None:
    """Run `python -m trainyard.prefect` inside a private Prefect's VPC, or here, from `code`.

    Args:
        waiting: how a task is waited for, as EcsTasks.run_task takes it.
    """
    parameter = Names(pulumi.stack).parameter(OUTPUTS)
    command = ["python", "-m", "trainyard.prefect", parameter, *options]
    if outputs["servers"]["prefect"]:  # private: only who is inside the VPC reaches it
        cloud.run_task("deployer", command, **(waiting or {}))
    else:
        environment = {
            "AWS_DEFAULT_REGION": region_of(outputs),
            "TRAINYARD_IMAGE": outputs["flow_image"],
        }
        if not os.environ.get("PREFECT_API_KEY"):
            secret = outputs["trainyard"]["work_pool"]["api_secret"]
            environment["PREFECT_API_KEY"] = cloud.read_secret(secret)
        pulumi.run_here(command, environment, code)


def model(pulumi: Pulumi, arguments: Sequence[str], connect: Connect = aws) -> None:
    """Run flows/lifecycle's own command inside the VPC, where MLflow is; says what it says."""
    outputs = made(pulumi)
    if not outputs.get("flow_image"):
        raise StackError(outputs["next"])
    connect(outputs).run_task("models", ["python", "-m", "flows.lifecycle", *arguments])


def down(pulumi: Pulumi, session: Callable[[str], Any] | None = None) -> None:
    """Remove a stack, and then the task definitions that Pulumi leaves: older ones, and runs'."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    region = pulumi.api.get_config("aws:region").value
    pulumi.destroy()
    say("deregistering task definitions")
    try:
        deregister((session or session_in)(region), Names(pulumi.stack))
    except (BotoCoreError, ClientError) as error:
        raise StackError(
            f"the stack is removed, but not all of its task definitions are deregistered: {error} "
            f"(they cost nothing; `make down STACK={pulumi.stack}` goes on from here)"
        ) from None


def status(pulumi: Pulumi) -> None:
    outputs = made(pulumi)
    shown = {k: v for k, v in outputs.items() if k in SHOWN}
    say(json.dumps(shown, indent=2))
    say(outputs["next"])
