"""`trainyard COMMAND [STACK]`: the front door. One function a command, which chooses the target:
this laptop, a stack on AWS, or the stack `rehearsal` on an emulator.

A command's docstring is its help: what it does, what it changes, what it costs, how it is undone.
Its first sentence is the one of `make help`.
"""

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from trainyard import __version__
from trainyard.contract.naming import REHEARSAL
from trainyard.paths import PROGRAM, REPO
from trainyard.tools import command_line
from trainyard.tools.errors import StackError

if TYPE_CHECKING:
    from trainyard.aws.pulumi_cli import Pulumi

app = App(
    name="trainyard",
    help="Operate Trainyard's stacks: Prefect, MLflow, an artifact store and workers, on this "
    "laptop or in your AWS account.",
    help_format="plaintext",
    help_epilogue="`trainyard COMMAND --help` says what a command changes and costs, and how to "
    "undo it. `make` knows the same words, and options as variables: `make demo KEEP=1 DATA=tlc` "
    "is `trainyard demo --keep --data tlc`, `make up STACK=dev` is `trainyard up dev`.",
    help_formatter="default" if sys.stdout.isatty() else "plain",
    default_parameter=Parameter(negative="", show_default=lambda value: value or None),
    usage="Usage: trainyard COMMAND [STACK] [OPTIONS]",
    version=__version__,
    version_flags=["--version"],
    error_formatter=command_line.usage_error,
)
app.config = (partial(command_line.options_given_to_make, others=app),)
app.register_install_completion_command()
RUN = Group("Run it", sort_key=1)
AWS = Group("Run it on AWS", sort_key=2)
CHECK = Group("Check it", sort_key=3)
_order = count()

Cpu = Literal["x86_64", "arm64"]
Pool = Literal["process", "docker"]
_STACK = (
    "Such as dev, whose settings are infra/Pulumi.dev.yaml; `rehearsal` is the one on the emulator."
)
_DATABASE = (
    "The revision that Prefect's database goes back to first, where the release has an older "
    "Prefect: see docs/operations.md."
)
StackName = Annotated[str, Parameter(help=_STACK)]
LaptopOrStack = Annotated[str | None, Parameter(help=f"{_STACK} Without it, this laptop's.")]
Database = Annotated[str, Parameter(help=_DATABASE)]


def command(group: Group) -> Callable[..., Any]:
    """Add a command to a group of the help, after those that are there."""
    return partial(
        app.command, group=group, sort_key=next(_order), help_format="markdown", help_epilogue=""
    )


# --- which stack ----------------------------------------------------------------------------------
def open_stack(stack: str, *, start: bool = False, released: bool = False) -> "Pulumi":
    """Give a stack's `pulumi`.

    Args:
        start: start the rehearsal's emulator where it doesn't run.
        released: the stack runs images of a release, so none of this clone have to be built.

    Raises:
        StackError: there is no such stack, or the rehearsal isn't up.
    """
    if stack == REHEARSAL:
        from trainyard.rehearsal import target

        return (target.opened if start else target.found)(released=released)
    from trainyard.aws.pulumi_cli import Pulumi

    if not re.fullmatch(r"[a-z][a-z0-9-]*", stack):
        raise StackError(f"{stack!r} is no name of a stack, such as dev")
    if not (PROGRAM / f"Pulumi.{stack}.yaml").exists():
        known = [path.suffixes[0][1:] for path in sorted(PROGRAM.glob("Pulumi.*.yaml"))]
        meant = command_line.nearest(stack, known)
        raise StackError(
            f"there is no infra/Pulumi.{stack}.yaml{meant or '.'} "
            f"`make bootstrap STACK={stack}` makes a new environment"
        )
    return Pulumi(stack)


# --- run it ---------------------------------------------------------------------------------------
@command(RUN)
def demo(
    *,
    flow: str = "taxi",
    data: str | None = None,
    train: str | None = None,
    valid: str | None = None,
    trials: int | None = None,
    pool: Pool | None = None,
    keep: bool = False,
) -> int:
    """Train a model end to end: stack up, one deployment run, a summary, down.

    - **Changes**: starts Prefect, MLflow and a worker on loopback ports, in .trainyard. The model
      becomes the champion in this laptop's registry, if it beats the one that is there.
    - **Costs**: about a minute; `--data tlc` downloads two months once.
    - **Undo**: nothing is left running. `make clean` removes what it wrote.

    Args:
        flow: Which pipeline: taxi (as without it), or another folder of flows/ whose deployment in
            prefect.yaml has the tag `demo`.
        data: synthetic (as without it), a folder, or what else the flow's `data` or `data_path`
            may be: for taxi tlc (New York's public files), s3:// or https://
        train: The month to train on, as YYYY-MM.
        valid: The month to validate on, as YYYY-MM.
        trials: How many trials to search.
        pool: As `trainyard up` takes it.
        keep: Leave the stack up, to look around.
    """
    from trainyard.laptop import commands
    from trainyard.laptop.demo import demo as run_demo
    from trainyard.laptop.parameters import demo_of

    image = _image_of(pool)
    return commands.run(
        lambda stack: run_demo(
            stack, demo_of(flow, data, train, valid, trials), keep=keep, image=image
        )
    )


@command(RUN)
def up(stack: LaptopOrStack = None, /, *, pool: Pool | None = None) -> int | None:
    """Start the laptop stack, or bring a stack on AWS to what its settings say.

    - **Changes**: on a laptop, processes on loopback ports, in .trainyard. On AWS, what `trainyard
      preview STACK` shows; it asks first, at a terminal.
    - **Costs**: on AWS, what `trainyard cost STACK` says.
    - **Undo**: `trainyard down`; on AWS, the earlier settings and `up` again.

    Args:
        pool: On a laptop, what runs are: processes (as without it), or with `docker` containers of
            the flow image, which is built first, from the flows as they are now; `trainyard
            deploy` tells the deployments.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(partial(commands.up, image=_image_of(pool)))
    if pool:
        raise StackError(f"on AWS runs are containers already: `trainyard up {stack}`")
    from trainyard.aws import stack as operations
    from trainyard.tools.console import say

    say(operations.up(open_stack(stack, start=True))["next"])
    return None


def _image_of(pool: Pool | None) -> str | None:
    """What a laptop's runs are started from; empty for processes, None for what they are now."""
    if pool != "docker":
        return "" if pool else None
    from trainyard.delivery import images
    from trainyard.tools.console import console

    cpu: Cpu = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    with console.status("building the flow image"):
        return images.build_one("flow", images.current_commit(), cpu).id


@command(RUN)
def down(stack: LaptopOrStack = None, /, *, quiet: bool = False) -> int | None:
    """Stop the laptop stack, or destroy a stack on AWS.

    - **Changes**: on a laptop, processes end and all data stays. On AWS every resource goes, unless
      some are protected (`durable: true`): then it names them and removes nothing.
    - **Costs**: nothing; on AWS, what is gone costs nothing more.
    - **Undo**: `trainyard up`. On AWS destroyed data is gone, but for the database's last snapshot.

    Args:
        quiet: Print nothing.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(partial(commands.down, quiet=quiet))
    if stack == REHEARSAL:
        from trainyard.rehearsal.target import end_rehearsal

        end_rehearsal()
        return None
    from trainyard.aws import stack as operations

    operations.down(open_stack(stack, start=True))
    return None


@command(RUN)
def status(stack: LaptopOrStack = None, /) -> int | None:
    """Show what runs, and where to look.

    - **Changes**: nothing, and it costs nothing.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(commands.status)
    from trainyard.aws import stack as operations

    operations.status(open_stack(stack))
    return None


@command(RUN)
def deploy(stack: LaptopOrStack = None, /, *, schedules: bool = False) -> int | None:
    """Register the stack with Prefect, then `prefect deploy --all`.

    - **Changes**: the stack's work pool, automations and deployments in Prefect become what the
      settings and prefect.yaml say; deployments that are gone from the file are deleted.
    - **Costs**: nothing but the runs that schedules start.
    - **Undo**: the earlier prefect.yaml, and `deploy` again.

    Args:
        schedules: On a laptop, let prefect.yaml's schedules start runs; without it they rest.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(partial(commands.register_and_deploy, schedules=schedules))
    if schedules:
        raise StackError(
            "on AWS the setting activeSchedules says whether schedules start runs: "
            f"infra/Pulumi.{stack}.yaml"
        )
    from trainyard.aws import stack as operations

    operations.deploy(open_stack(stack))
    return None


@command(RUN)
def backfill(
    deployment: str,
    months: str,
    stack: LaptopOrStack = None,
    /,
    *,
    parameter: Annotated[list[str] | None, Parameter(name=["--parameter", "-p"])] = None,
    parallel: int = 2,
    again: bool = False,
) -> int:
    """Run a deployment once for each month of a range, a few at a time.

    A month is skipped where a run of the deployment with the very same parameters has completed,
    and waited for where one is under way. It ends with a table; the exit status is 1 if any month
    failed, and the others run all the same. Ctrl-C begins no more runs: those under way go on, and
    the same command goes on from there.

    - **Changes**: runs in Prefect, with the tag `backfill`, and what they write.
    - **Costs**: what the runs cost; on AWS also a small task, about 3 cents an hour, until they are
      done.
    - **Undo**: Ctrl-C, and cancel the runs under way on Prefect's pages; what runs wrote stays.

    Args:
        deployment: Such as taxi-score/taxi-score, whose flow has a parameter `month`.
        months: FIRST..LAST, both included, such as 2023-01..2023-06.
        parameter: NAME=VALUE, another parameter of every run; the value is JSON where it can be
            read as JSON, else text. It may be given several times (to make once, as
            `make backfill PARAMETER=data=tlc`).
        parallel: How many runs at a time; never more than the deployment's own limit in
            prefect.yaml.
        again: Run the months, too, that have completed. (A scoring flow itself keeps a month that
            the same model version has scored from the same data.)
    """
    from trainyard.prefect.backfill_request import Backfill

    request = Backfill(
        deployment=deployment,
        months=months,
        parameters=tuple(parameter or ()),
        parallel=parallel,
        again=again,
    )
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(partial(commands.backfill, request=request))
    if faults := [*request.faults()]:  # before a task is started to say so
        raise StackError("\n  ".join(faults))
    from trainyard.aws import stack as operations

    signal.signal(signal.SIGHUP, signal.default_int_handler)  # a closed terminal ends the task too
    return operations.backfill(open_stack(stack), request.model_dump_json())


ModelAction = Literal["list", "card", "promote", "rollback", "reproduce", "serve"]


@command(RUN)
def model(
    action: ModelAction,
    name: str = "",
    stack: LaptopOrStack = None,
    /,
    *,
    force: str = "",
    reason: str = "",
    port: int | None = None,
) -> int:
    """List registered models, or show, promote, take back, reproduce or serve one.

    `list` compares a model's versions, or lists all models; `card` shows what a version is and what
    the gate said; `promote` compares it with the champion and promotes it if it wins, or says yes
    to a run that waits for it; `rollback` makes the previous champion the champion again;
    `reproduce` trains a version again from what the registry recorded, and compares predictions;
    `serve` answers over HTTP on this laptop (`trainyard serve --help`).

    - **Changes**: `promote` and `rollback` move the registry's aliases; the others nothing.
    - **Costs**: on AWS a small task for a minute or two; `reproduce` as long as the training took.
    - **Undo**: `trainyard model promote NAME/VERSION --force REASON` makes any version the
      champion.

    Args:
        action: What to do.
        name: NAME, NAME@ALIAS or NAME/VERSION, such as taxi-trip-duration@champion. Without an
            alias `promote` takes the challenger, the others the champion.
        force: `promote`: make it the champion without a comparison, for this reason.
        reason: `rollback`: why, for those who read the registry later.
        port: `serve`: as `trainyard serve` takes it.
    """
    if not name and action != "list":
        raise StackError(f"which model? `trainyard model {action} NAME`; `model list` lists them")
    if action == "rollback" and not reason:
        raise StackError(f"why? `trainyard model rollback {name} --reason TEXT`")
    options = {
        "promote": ("--force", force),
        "rollback": ("--reason", reason),
        "serve": ("--port", "" if port is None else str(port)),
    }
    for of, (option, value) in options.items():
        if value and of != action:
            raise StackError(f"`{action}` takes no {option}: it is for `{of}`")
    option, value = options.get(action, ("", ""))
    given = [f"{option}={value}"] if value else []
    arguments = [action, *filter(None, [name]), *given]
    if action == "serve" and stack is not None:
        raise StackError(
            f"this command serves on a laptop: leave `{stack}` away. A stack serves what `serve` "
            f"names in infra/Pulumi.{stack}.yaml: set it, then `make up STACK={stack}`"
        )
    if stack is None:
        from trainyard.laptop import commands

        act = commands.serve if action == "serve" else commands.model
        return commands.run(partial(act, arguments=arguments))
    from trainyard.aws import stack as operations

    operations.model(open_stack(stack), arguments)
    return 0


# the command's own parameter is `model`, for `make serve MODEL=`
_on_models = model


@command(RUN)
def serve(model: str, /, *, port: int | None = None) -> int:
    """Answer over HTTP with a registered model, on this laptop, until Ctrl-C.

    `POST /predict` takes {"rows": [...]}, and `/docs` has an example. A promotion or a rollback is
    taken within 5 seconds, and no request is lost by it. The stack has to be up: `trainyard up`.

    - **Changes**: the artifact store gets a log of requests and answers, under `served/`;
      TRAINYARD_SERVE_LOG is the share of requests in it, 0 to 1. It listens on a port of
      127.0.0.1, and answers this machine only.
    - **Costs**: 450 MB of memory, and a challenger's own, which answers in shadow; a request for
      one row 6 ms of a core.
    - **Undo**: Ctrl-C, or `trainyard down`; delete `served/` of the artifact store.

    Args:
        model: NAME or NAME@ALIAS, such as taxi-trip-duration; without an alias the champion.
        port: The port; 8000 without it.
    """
    return int(_on_models("serve", model, port=port))


# --- run it on AWS --------------------------------------------------------------------------------
@command(AWS)
def image(*, cpu: Cpu = "x86_64", tags: bool = False) -> int | None:
    """Build, measure and smoke-test the images of flows, worker and MLflow.

    - **Changes**: images in this machine's Docker.
    - **Costs**: some 3 GB of disk, and minutes the first time.
    - **Undo**: `docker image rm`.

    Args:
        cpu: What they run on; x86_64 without it.
        tags: Print the content tag of each instead, and build nothing.
    """
    from trainyard.delivery import images

    if tags:
        images.print_tags(cpu)
        return None
    return images.build_and_report(cpu)


@command(AWS)
def publish(*, cpu: Cpu = "x86_64") -> None:
    """Push the commit's images to the account's registry, each built once.

    - **Changes**: images in ECR, and .trainyard/release.json, which `trainyard release` reads.
      Needs Docker and a commit without changes beside it.
    - **Costs**: about 0.10 $ a GB and month in ECR; old images expire by themselves.
    - **Undo**: nothing runs them until a release.

    Args:
        cpu: What they run on; x86_64 without it.
    """
    from trainyard.delivery.publish import publish_release

    publish_release(cpu)


@command(AWS)
def release(stack: StackName, /, *, database: Database = "") -> int:
    """Bring what `publish` pushed to a stack: up, deployments, a smoke run.

    - **Changes**: the stack's images, resources and deployments. Where the same files run already,
      nothing.
    - **Costs**: what `trainyard cost STACK` says, and one short task for the smoke run.
    - **Undo**: `trainyard rollback STACK`.
    """
    from trainyard.delivery.release import deliver

    return deliver(
        "release", stack, partial(open_stack, stack, start=True, released=True), database
    )


@command(AWS)
def rollback(stack: StackName, /, *, database: Database = "") -> int:
    """Take a stack back to the release that completed there before.

    - **Changes**: as `trainyard release`, with the older images and prefect.yaml.
    - **Costs**: as a release.
    - **Undo**: release the newer commit again.
    """
    from trainyard.delivery.release import deliver

    return deliver("rollback", stack, partial(open_stack, stack, released=True), database)


@command(AWS)
def smoke(stack: StackName, /) -> int:
    """Run the smoke deployment of a stack, and wait for its end.

    - **Changes**: one run in Prefect and MLflow.
    - **Costs**: a minute of the smallest task.
    - **Undo**: delete the run on Prefect's page.
    """
    from trainyard.delivery.release import deliver

    return deliver("smoke", stack, partial(open_stack, stack))


@command(AWS)
def bootstrap(
    stack: str = "", /, *, repo: str = "", owner_id: str = "", repository_id: str = ""
) -> None:
    """Make what an AWS account has once: Pulumi's state, the stack `account`.

    - **Changes**: in AWS a bucket, a key, a registry, the roles that GitHub takes;
      infra/Pulumi.*.yaml here; with `--repo` variables and environments of that GitHub repository.
      Run it with an administrator's credentials; it can be repeated.
    - **Costs**: 1 $ a month for the key; images and state by their size.
    - **Undo**: docs/aws.md, "The end".

    Args:
        stack: An environment to prepare too, such as dev.
        repo: owner/name of the GitHub repository that deploys.
        owner_id: The number of its owner; without it `gh` is asked.
        repository_id: Its own number; without it `gh` is asked.
    """
    from trainyard.aws.bootstrap import bootstrap as make

    make(stack, repo, owner_id, repository_id)


@command(AWS)
def preview(stack: StackName, /, *, base: str = "") -> int | None:
    """Show what an `up` would change, and which rules of infra/policy it breaks.

    - **Changes**: nothing, and it costs nothing. (`rehearsal` starts its emulator.)

    Args:
        base: A branch or commit: write a pull request's comment against it, in
            .trainyard/preview.md.
    """
    if base:
        from trainyard.aws.pr_comment import preview_change

        return preview_change(stack, base)
    open_stack(stack, start=True).preview()
    return None


@command(AWS)
def drift(stack: StackName, /, *, issue: bool = False) -> int:
    """Show what was changed in AWS by hand.

    The exit status is 2 where something was, and 1 where it couldn't be found out. (make has 2 for
    any failure.)

    - **Changes**: nothing in AWS, and it costs nothing; the report is .trainyard/drift.md.
    - **Undo**: the report says how what it finds is undone, or kept.

    Args:
        issue: Keep one issue of it on GitHub, open while there is drift.
    """
    from trainyard.aws.drift import drift as look

    return look(stack, partial(open_stack, stack), issue=issue)


@command(AWS)
def doctor(stack: str = "", /) -> int:
    """Say what is wrong here, and what to do.

    - **Changes**: nothing, and it costs nothing.

    Args:
        stack: Of infra/Pulumi.STACK.yaml: its AWS account and services too.
    """
    if stack == REHEARSAL:
        raise StackError("a rehearsal is in no AWS account: `make rehearse` looks at it")
    from trainyard.aws.doctor import doctor as look
    from trainyard.laptop.doctor import laptop
    from trainyard.prefect.health import tell

    failed = 0 if stack else tell(laptop())
    return failed | look(stack)


@command(AWS)
def cost(stack: str = "", /) -> int:
    """Say what a stack costs a month while nothing trains, by component.

    - **Changes**: nothing, and it costs nothing. Prices are those of infra/estimate/prices.json,
      in US dollars.

    Args:
        stack: Of infra/Pulumi.STACK.yaml; without it, each profile.
    """
    # The program's environment: it runs the program to see what it asks for.
    python = REPO / ".venv-infra/bin/python"
    if not python.exists():
        raise StackError("the Pulumi program's environment isn't here: `make cost` installs it")
    command = [f"{python}", "-W", "ignore", "-m", "infra.estimate.cost", *filter(None, [stack])]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": f"{REPO}"}).returncode  # noqa: S603


@command(AWS)
def ui(stack: StackName, /) -> None:
    """Open a stack's private pages, MLflow and Prefect, through a tunnel.

    - **Changes**: one small task in the stack, for as long as the tunnel is open.
    - **Costs**: about a cent an hour.
    - **Undo**: Ctrl-C ends tunnel and task.
    """
    from trainyard.aws.tunnel import ui as open_pages

    open_pages(open_stack(stack))


@command(AWS)
def rehearse(
    *, prefect: Literal["self-hosted", "cloud"] = "self-hosted", keep: bool = False
) -> int:
    """Rehearse the whole cloud path on an emulator, from nothing to a trained model and back.

    - **Changes**: containers on this machine (Linux, Docker); a rehearsal that is up ends first.
    - **Costs**: about 8 minutes; nothing in AWS.
    - **Undo**: nothing is left, or with `--keep` `trainyard down rehearsal`.

    Args:
        prefect: Who runs Prefect's API: a server in the stack (as without it), or a
            stand-in for the cloud.
        keep: Leave the stack up: without its last step, or after a failure.
    """
    from trainyard.rehearsal.rehearse import rehearse_command

    return rehearse_command(prefect, keep=keep)


@command(AWS)
def drills(*, only: str = "", keep: bool = False) -> int:
    """Break the rehearsal's stack on purpose, one fault at a time; writes docs/reliability.md.

    - **Changes**: docs/reliability.md, and containers on this machine (Linux, Docker).
    - **Costs**: about 20 minutes for all; nothing in AWS.
    - **Undo**: nothing is left, or with `--keep` `trainyard down rehearsal`.

    Args:
        only: One drill of docs/reliability.md, or `today`: the part of them that CI runs
            today.
        keep: Leave the stack up, so that the next drill needn't start one.
    """
    from trainyard.rehearsal.drill_runner import drills_command

    return drills_command(only, keep=keep)


# --- check it -------------------------------------------------------------------------------------
@command(CHECK)
def lint(file: Path | None = None, /) -> int:
    """Check prefect.yaml as far as it goes without a stack.

    - **Changes**: nothing. It imports the flows that the file names.

    Args:
        file: Another file than this repository's.
    """
    from trainyard.prefect.lint import lint as look

    return look(file or REPO / "prefect.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    if arguments is None:  # what ends a job of CI ends pulumi as Ctrl-C does: no lock is left
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return command_line.run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
