"""`trainyard COMMAND [STACK]`: the front door. One function a command, which chooses the target:
this laptop, a stack on AWS, or the stack `rehearsal` on an emulator.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from trainyard.contract.naming import REHEARSAL
from trainyard.tools.errors import StackError

if TYPE_CHECKING:
    from trainyard.aws.pulumi_cli import Pulumi

app = App(
    name="trainyard",
    help="Operate Trainyard's stacks.",
    default_parameter=Parameter(negative=""),
    version_flags=[],
)
RUN = Group("Run it, here or on AWS", sort_key=1)
AWS = Group("Run it on AWS", sort_key=2)
CHECK = Group("Check it", sort_key=3)
Cpu = Literal["x86_64", "arm64"]
StackName = Annotated[
    str, Parameter(help="Of infra/Pulumi.STACK.yaml, or `rehearsal`: the one on the emulator.")
]
LaptopOrStack = Annotated[
    str,
    Parameter(
        help="Of infra/Pulumi.STACK.yaml, or `rehearsal`: the one on the emulator. Without it, "
        "this laptop's.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, Parameter(help="Print nothing.")]


# --- which stack ----------------------------------------------------------------------------------
def open_stack(stack: str, *, released: bool = False) -> "Pulumi":
    """A stack's `pulumi`; the rehearsal's emulator is started for it.

    Args:
        stack: its name.
        released: it runs images of a release, so none of this clone have to be built.
    """
    from trainyard.aws.pulumi_cli import Pulumi

    if stack != REHEARSAL:
        return Pulumi(stack)
    from trainyard.rehearsal.target import opened

    return opened(released=released)


def running_stack(stack: str, *, released: bool = False) -> "Pulumi":
    """A stack's `pulumi`, as the last command left it.

    Args:
        stack: its name.
        released: it shall run the images of a release.
    """
    from trainyard.aws.pulumi_cli import Pulumi

    if stack != REHEARSAL:
        return Pulumi(stack)
    from trainyard.rehearsal.target import found

    return found(released=released)


# --- commands -------------------------------------------------------------------------------------
@app.command(group=RUN)
def demo(
    *,
    data: str = "synthetic",
    train: str | None = None,
    valid: str | None = None,
    trials: int | None = None,
    keep: bool = False,
) -> int:
    """Train a model end to end on the laptop stack, which comes up for it and goes down after.

    Parameters
    ----------
    data
        synthetic, tlc, a folder, s3:// or https://
    train
        The month to train on, as YYYY-MM.
    valid
        The month to validate on, as YYYY-MM.
    trials
        How many trials to search.
    keep
        Leave the stack up.
    """
    from trainyard.laptop import commands
    from trainyard.laptop.demo import demo as run_demo
    from trainyard.laptop.demo import run_parameters

    return commands.run(
        lambda stack: run_demo(stack, run_parameters(data, train, valid, trials), keep=keep)
    )


@app.command(group=RUN)
def up(stack: LaptopOrStack = "", /) -> int | None:
    """Start the laptop stack, or bring a stack on AWS to what its settings say."""
    if not stack:
        from trainyard.laptop import commands

        return commands.run(commands.up)
    from trainyard.aws import stack as operations
    from trainyard.tools.console import say

    say(operations.up(open_stack(stack))["next"])
    return None


@app.command(group=RUN)
def down(stack: LaptopOrStack = "", /, *, quiet: Quiet = False) -> int | None:
    """Stop the laptop stack, or destroy a stack on AWS."""
    if not stack:
        from trainyard.laptop import commands

        return commands.run(partial(commands.down, quiet=quiet))
    if stack == REHEARSAL:
        from trainyard.rehearsal.target import end_rehearsal

        end_rehearsal()
        return None
    from trainyard.aws import stack as operations

    operations.down(open_stack(stack))
    return None


@app.command(group=RUN)
def status(stack: LaptopOrStack = "", /) -> int | None:
    """Say what runs, and where to look."""
    if not stack:
        from trainyard.laptop import commands

        return commands.run(commands.status)
    from trainyard.aws import stack as operations

    operations.status(running_stack(stack))
    return None


@app.command(group=RUN)
def deploy(stack: LaptopOrStack = "", /) -> int | None:
    """Register a stack with Prefect, then `prefect deploy --all`."""
    if not stack:
        from trainyard.laptop import commands
        from trainyard.laptop.deploy import register_and_deploy

        return commands.run(register_and_deploy)
    from trainyard.aws import stack as operations

    operations.deploy(running_stack(stack))
    return None


@app.command(group=AWS)
def image(*, cpu: Cpu = "x86_64", tags: bool = False) -> int | None:
    """Build, measure and smoke-test the images of flows, worker and MLflow.

    Parameters
    ----------
    cpu
        What they run on.
    tags
        Print the content tag of each instead, and build nothing.
    """
    from trainyard.delivery import images

    if tags:
        images.print_tags(cpu)
        return None
    return images.build_and_report(cpu)


@app.command(group=AWS)
def publish(*, cpu: Cpu = "x86_64") -> None:
    """Push the commit's images, each built once, and write .trainyard/release.json."""
    from trainyard.delivery.publish import publish_release

    publish_release(cpu)


@app.command(group=AWS)
def bootstrap(
    *, stack: str = "", repository: str = "", owner_id: str = "", repository_id: str = ""
) -> None:
    """Make what an AWS account has once: Pulumi's state, and the stack `account`.

    Parameters
    ----------
    stack
        An environment to prepare too, such as dev.
    repository
        owner/name of the GitHub repository that deploys.
    owner_id
        The number of its owner; without it `gh` is asked.
    repository_id
        Its own number; without it `gh` is asked.
    """
    from trainyard.aws.bootstrap import bootstrap as make

    make(stack, repository, owner_id, repository_id)


@app.command(group=AWS)
def preview(stack: StackName, /, *, base: str = "") -> int | None:
    """Show what an `up` would change, and which rules of infra/policy it breaks.

    Parameters
    ----------
    base
        A branch or commit: write a pull request's comment against it instead.
    """
    if base:
        from trainyard.aws.pr_comment import preview_change

        return preview_change(stack, base)
    open_stack(stack).preview()
    return None


@app.command(group=AWS)
def release(stack: StackName, /) -> int:
    """Bring what `publish` pushed to a stack: up, deployments, a smoke run."""
    from trainyard.delivery.release import deliver

    return deliver("release", stack, partial(open_stack, stack, released=True))


@app.command(group=AWS)
def rollback(stack: StackName, /) -> int:
    """Bring the release to a stack that completed there before."""
    from trainyard.delivery.release import deliver

    return deliver("rollback", stack, partial(running_stack, stack, released=True))


@app.command(group=AWS)
def smoke(stack: StackName, /) -> int:
    """Run the smoke deployment of a stack, and wait for its end."""
    from trainyard.delivery.release import deliver

    return deliver("smoke", stack, partial(running_stack, stack))


@app.command(group=AWS)
def drift(stack: StackName, /, *, issue: bool = False) -> int:
    """Show what was changed in AWS by hand; exit code 2 where something was.

    Parameters
    ----------
    issue
        Keep an issue of it on GitHub.
    """
    from trainyard.aws.drift import drift as look

    return look(stack, partial(running_stack, stack), issue=issue)


@app.command(group=AWS)
def doctor(
    stack: Annotated[str, Parameter(help="Of infra/Pulumi.STACK.yaml.", show_default=False)] = "", /
) -> int:
    """Say what is wrong with this machine, or with a stack on AWS, and what to do."""
    if stack == REHEARSAL:
        raise StackError("a rehearsal is in no AWS account: `make rehearse` looks at it")
    from trainyard.aws.doctor import doctor as look

    return look(stack)


@app.command(group=AWS)
def ui(stack: StackName, /) -> None:
    """Open a stack's private pages, MLflow and Prefect, through a tunnel."""
    from trainyard.aws.tunnel import ui as open_pages

    open_pages(running_stack(stack))


@app.command(group=AWS)
def rehearse(
    *, prefect: Literal["self-hosted", "cloud"] = "self-hosted", keep: bool = False
) -> int:
    """Rehearse the whole cloud path on an emulator, from nothing to a trained model and back.

    Parameters
    ----------
    prefect
        Who runs Prefect's API.
    keep
        Leave the stack up: without its last step, or after a failure.
    """
    from trainyard.rehearsal.rehearse import rehearse_command

    return rehearse_command(prefect, keep=keep)


@app.command(group=AWS)
def drills(*, only: str = "", keep: bool = False) -> int:
    """Break the rehearsal's stack on purpose, one fault at a time; writes docs/reliability.md.

    Parameters
    ----------
    only
        One drill of docs/reliability.md, or `today`: the third of them that CI runs today. All
        drills take 20 minutes.
    keep
        Leave the stack up, so that the next drill needn't start one.
    """
    from trainyard.rehearsal.drills import drills_command

    return drills_command(only, keep=keep)


@app.command(group=CHECK)
def lint(file: Path = Path("prefect.yaml"), /) -> int:
    """Check prefect.yaml as far as it goes without a stack; changes nothing.

    Parameters
    ----------
    file
        Another such file.
    """
    from trainyard.prefect.lint import lint as look

    return look(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error of ours is one message, and the exit code 1."""
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    try:
        return app(arguments, result_action="return_value") or 0
    except Exception as error:
        if not isinstance(error, StackError) and not _of_aws(error):
            raise
        print(error, file=sys.stderr)
        return 1


def _of_aws(error: Exception) -> bool:
    """Whether AWS refuses, or isn't reached. Asked without boto3, which a laptop needn't load."""
    return any(each.__module__ == "botocore.exceptions" for each in type(error).__mro__)


if __name__ == "__main__":
    sys.exit(main())
