"""`trainyard COMMAND [STACK]`: the front door. One function a command, which chooses the target:
this laptop, a stack on AWS, or the stack `rehearsal` on an emulator.

A command's docstring is its help: what it does, what it changes, what it costs, how it is undone.
Its first sentence is the one of `make help`.
"""

import os
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
    default_parameter=Parameter(negative=""),
    usage="Usage: trainyard COMMAND [STACK] [OPTIONS]",
    version_flags=[],
    error_formatter=command_line.usage_error,
)
app.config = (partial(command_line.options_given_to_make, others=app),)
app.register_install_completion_command()
RUN = Group("Run it", sort_key=1)
AWS = Group("Run it on AWS", sort_key=2)
CHECK = Group("Check it", sort_key=3)
_order = count()

Cpu = Literal["x86_64", "arm64"]
StackName = Annotated[
    str,
    Parameter(
        help="Such as dev, whose settings are infra/Pulumi.dev.yaml; `rehearsal` is the one on the "
        "emulator."
    ),
]
LaptopOrStack = Annotated[
    str | None,
    Parameter(
        help="Such as dev, whose settings are infra/Pulumi.dev.yaml; `rehearsal` is the one on the "
        "emulator. Without it, this laptop's.",
    ),
]
Database = Annotated[
    str,
    Parameter(
        help="The revision that Prefect's database goes back to first, where the release has an "
        "older Prefect: see docs/operations.md.",
    ),
]


def command(group: Group) -> Callable[..., Any]:
    """Add a command to a group of the help, after those that are there."""
    return partial(
        app.command, group=group, sort_key=next(_order), help_format="markdown", help_epilogue=""
    )


# --- which stack ----------------------------------------------------------------------------------
def open_stack(stack: str, *, released: bool = False) -> "Pulumi":
    """Give a stack's `pulumi`; the rehearsal's emulator is started for it.

    Args:
        stack: its name.
        released: it runs images of a release, so none of this clone have to be built.

    Raises:
        StackError: there is no such stack.
    """
    if stack != REHEARSAL:
        return _on_aws(stack)
    from trainyard.rehearsal.target import opened

    return opened(released=released)


def running_stack(stack: str, *, released: bool = False) -> "Pulumi":
    """Give a stack's `pulumi`, as the last command left it.

    Args:
        stack: its name.
        released: it shall run the images of a release.

    Raises:
        StackError: there is no such stack, or the rehearsal isn't up.
    """
    if stack != REHEARSAL:
        return _on_aws(stack)
    from trainyard.rehearsal.target import found

    return found(released=released)


def _on_aws(stack: str) -> "Pulumi":
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
    data: str = "synthetic",
    train: str | None = None,
    valid: str | None = None,
    trials: int | None = None,
    keep: bool = False,
) -> int:
    """Train a model end to end: stack up, one deployment run, a summary, down.

    - **Changes**: starts Prefect, MLflow and a worker on loopback ports, in .trainyard. The model
      takes the alias `champion` in this laptop's registry.
    - **Costs**: about a minute; `--data tlc` downloads two months once.
    - **Undo**: nothing is left running. `make clean` removes what it wrote.

    Parameters
    ----------
    data
        synthetic (as without it), tlc (New York's public files), a folder, s3:// or https://
    train
        The month to train on, as YYYY-MM.
    valid
        The month to validate on, as YYYY-MM.
    trials
        How many trials to search.
    keep
        Leave the stack up, to look around.
    """
    from trainyard.laptop import commands
    from trainyard.laptop.demo import demo as run_demo
    from trainyard.laptop.demo import run_parameters

    return commands.run(
        lambda stack: run_demo(stack, run_parameters(data, train, valid, trials), keep=keep)
    )


@command(RUN)
def up(stack: LaptopOrStack = None, /) -> int | None:
    """Start the laptop stack, or bring a stack on AWS to what its settings say.

    - **Changes**: on a laptop, processes on loopback ports, in .trainyard. On AWS, what `trainyard
      preview STACK` shows; it asks first, at a terminal.
    - **Costs**: on AWS, what `trainyard cost STACK` says.
    - **Undo**: `trainyard down`; on AWS, the earlier settings and `up` again.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(commands.up)
    from trainyard.aws import stack as operations
    from trainyard.tools.console import say

    say(operations.up(open_stack(stack))["next"])
    return None


@command(RUN)
def down(
    stack: LaptopOrStack = None,
    /,
    *,
    quiet: Annotated[bool, Parameter(help="Print nothing.")] = False,
) -> int | None:
    """Stop the laptop stack, or destroy a stack on AWS.

    - **Changes**: on a laptop, processes end and all data stays. On AWS every resource goes, unless
      some are protected (`durable: true`): then it names them and removes nothing.
    - **Costs**: nothing; on AWS, what is gone costs nothing more.
    - **Undo**: `trainyard up`. On AWS destroyed data is gone, but for the database's last snapshot.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(partial(commands.down, quiet=quiet))
    if stack == REHEARSAL:
        from trainyard.rehearsal.target import end_rehearsal

        end_rehearsal()
        return None
    from trainyard.aws import stack as operations

    operations.down(open_stack(stack))
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

    operations.status(running_stack(stack))
    return None


@command(RUN)
def deploy(stack: LaptopOrStack = None, /) -> int | None:
    """Register the stack with Prefect, then `prefect deploy --all`.

    - **Changes**: the stack's work pool, automations and deployments in Prefect become what the
      settings and prefect.yaml say; deployments that are gone from the file are deleted.
    - **Costs**: nothing but the runs that schedules start.
    - **Undo**: the earlier prefect.yaml, and `deploy` again.
    """
    if stack is None:
        from trainyard.laptop import commands

        return commands.run(commands.register_and_deploy)
    from trainyard.aws import stack as operations

    operations.deploy(running_stack(stack))
    return None


# --- run it on AWS --------------------------------------------------------------------------------
@command(AWS)
def image(*, cpu: Cpu = "x86_64", tags: bool = False) -> int | None:
    """Build, measure and smoke-test the images of flows, worker and MLflow.

    - **Changes**: images in this machine's Docker.
    - **Costs**: some 3 GB of disk, and minutes the first time.
    - **Undo**: `docker image rm`.

    Parameters
    ----------
    cpu
        What they run on; x86_64 without it.
    tags
        Print the content tag of each instead, and build nothing.
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

    Parameters
    ----------
    cpu
        What they run on; x86_64 without it.
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

    return deliver("release", stack, partial(open_stack, stack, released=True), database)


@command(AWS)
def rollback(stack: StackName, /, *, database: Database = "") -> int:
    """Take a stack back to the release that completed there before.

    - **Changes**: as `trainyard release`, with the older images and prefect.yaml.
    - **Costs**: as a release.
    - **Undo**: release the newer commit again.
    """
    from trainyard.delivery.release import deliver

    return deliver("rollback", stack, partial(running_stack, stack, released=True), database)


@command(AWS)
def smoke(stack: StackName, /) -> int:
    """Run the smoke deployment of a stack, and wait for its end.

    - **Changes**: one run in Prefect and MLflow.
    - **Costs**: a minute of the smallest task.
    - **Undo**: delete the run on Prefect's page.
    """
    from trainyard.delivery.release import deliver

    return deliver("smoke", stack, partial(running_stack, stack))


@command(AWS)
def bootstrap(
    stack: Annotated[str, Parameter(help="An environment to prepare too, such as dev.")] = "",
    /,
    *,
    repo: str = "",
    owner_id: str = "",
    repository_id: str = "",
) -> None:
    """Make what an AWS account has once: Pulumi's state, the stack `account`.

    - **Changes**: in AWS a bucket, a key, a registry, the roles that GitHub takes;
      infra/Pulumi.*.yaml here; with `--repo` variables and environments of that GitHub repository.
      Run it with an administrator's credentials; it can be repeated.
    - **Costs**: 1 $ a month for the key; images and state by their size.
    - **Undo**: docs/aws.md, "The end".

    Parameters
    ----------
    repo
        owner/name of the GitHub repository that deploys.
    owner_id
        The number of its owner; without it `gh` is asked.
    repository_id
        Its own number; without it `gh` is asked.
    """
    from trainyard.aws.bootstrap import bootstrap as make

    make(stack, repo, owner_id, repository_id)


@command(AWS)
def preview(stack: StackName, /, *, base: str = "") -> int | None:
    """Show what an `up` would change, and which rules of infra/policy it breaks.

    - **Changes**: nothing, and it costs nothing. (`rehearsal` starts its emulator.)

    Parameters
    ----------
    base
        A branch or commit: write a pull request's comment against it, in .trainyard/preview.md.
    """
    if base:
        from trainyard.aws.pr_comment import preview_change

        return preview_change(stack, base)
    open_stack(stack).preview()
    return None


@command(AWS)
def drift(stack: StackName, /, *, issue: bool = False) -> int:
    """Show what was changed in AWS by hand.

    The exit status is 2 where something was, and 1 where it couldn't be found out. (make has 2 for
    any failure.)

    - **Changes**: nothing in AWS, and it costs nothing; the report is .trainyard/drift.md.
    - **Undo**: the report says how what it finds is undone, or kept.

    Parameters
    ----------
    issue
        Keep one issue of it on GitHub, open while there is drift.
    """
    from trainyard.aws.drift import drift as look

    return look(stack, partial(running_stack, stack), issue=issue)


@command(AWS)
def doctor(
    stack: Annotated[
        str,
        Parameter(
            help="Of infra/Pulumi.STACK.yaml: its AWS account and services too.", show_default=False
        ),
    ] = "",
    /,
) -> int:
    """Say what is wrong here, and what to do.

    - **Changes**: nothing, and it costs nothing.
    """
    if stack == REHEARSAL:
        raise StackError("a rehearsal is in no AWS account: `make rehearse` looks at it")
    from trainyard.aws.doctor import doctor as look

    return look(stack)


@command(AWS)
def cost(
    stack: Annotated[
        str, Parameter(help="Of infra/Pulumi.STACK.yaml; without it, each profile.")
    ] = "",
    /,
) -> int:
    """Say what a stack costs a month while nothing trains, by component.

    - **Changes**: nothing, and it costs nothing. Prices are those of infra/estimate/prices.json,
      in US dollars.
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

    open_pages(running_stack(stack))


@command(AWS)
def rehearse(
    *, prefect: Literal["self-hosted", "cloud"] = "self-hosted", keep: bool = False
) -> int:
    """Rehearse the whole cloud path on an emulator, from nothing to a trained model and back.

    - **Changes**: containers on this machine (Linux, Docker); a rehearsal that is up ends first.
    - **Costs**: about 8 minutes; nothing in AWS.
    - **Undo**: nothing is left, or with `--keep` `trainyard down rehearsal`.

    Parameters
    ----------
    prefect
        Who runs Prefect's API: a server in the stack (as without it), or a stand-in for the cloud.
    keep
        Leave the stack up: without its last step, or after a failure.
    """
    from trainyard.rehearsal.rehearse import rehearse_command

    return rehearse_command(prefect, keep=keep)


@command(AWS)
def drills(*, only: str = "", keep: bool = False) -> int:
    """Break the rehearsal's stack on purpose, one fault at a time; writes docs/reliability.md.

    - **Changes**: docs/reliability.md, and containers on this machine (Linux, Docker).
    - **Costs**: about 20 minutes for all; nothing in AWS.
    - **Undo**: nothing is left, or with `--keep` `trainyard down rehearsal`.

    Parameters
    ----------
    only
        One drill of docs/reliability.md, or `today`: the third of them that CI runs today.
    keep
        Leave the stack up, so that the next drill needn't start one.
    """
    from trainyard.rehearsal.drill_runner import drills_command

    return drills_command(only, keep=keep)


# --- check it -------------------------------------------------------------------------------------
@command(CHECK)
def lint(file: Path | None = None, /) -> int:
    """Check prefect.yaml as far as it goes without a stack.

    - **Changes**: nothing. It imports the flows that the file names.

    Parameters
    ----------
    file
        Another file than this repository's.
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
