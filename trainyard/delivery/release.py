"""`make release|rollback|smoke STACK=`: bring a release to a stack, go back, or try the stack.

A release is noted in a parameter of the stack first, so that every later `make up` keeps its images
and a release that was killed is finished by the next. What completed its smoke run is recorded.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.version import Version
from pydantic import TypeAdapter, ValidationError

from trainyard.aws.ecs_tasks import EcsTasks, aws
from trainyard.aws.pulumi_cli import Pulumi, typed
from trainyard.aws.stack import Connect, run_deployer, up
from trainyard.contract.naming import RELEASE, RELEASES, Names
from trainyard.contract.readiness import NOTHING_DONE
from trainyard.contract.release import Release, ReleaseRecord
from trainyard.delivery.images import prefect_version
from trainyard.paths import RELEASE_FILE, REPO
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.git import GitError, files_of, git

KEPT = 5
# What a parameter of Systems Manager's standard tier holds.
MAX_BYTES = 4096
# What opens Prefect Cloud; a stack's own server is opened by another.
API_KEY = "PREFECT_API_KEY"
DOWNGRADE = ("prefect", "server", "database", "downgrade")
HISTORY = TypeAdapter(tuple[Release, ...])


# --- what the terminal and the job's summary show -------------------------------------------------
@dataclass
class Steps:
    """The steps of a command, with their times."""

    title: str
    rows: list[tuple[str, float, bool]] = field(default_factory=list)
    error: str = ""
    next: str = ""
    """What to type after a failure."""

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        say(what)
        started, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            self.rows.append((what, time.monotonic() - started, done))

    def show(self) -> None:
        """Print the table, and put it into the summary of a GitHub job."""
        heading = f"{self.title}{' failed' if self.error else ''}"
        lines = [f"### {heading}", ""]
        lines += ["| | step | seconds |", "|---|---|---:|"] if self.rows else []
        say(f"\n{heading}")
        for what, seconds, done in self.rows:
            mark = "✓" if done else "✗"
            say(f"{mark} {what:<30}{seconds:6.0f} s")
            lines.append(f"| {mark} | {what} | {seconds:.0f} |")
        if self.error:
            say(self.error)
            lines += ["", "```text", self.error, "```"]
        if self.error and self.next:
            say(f"next: {self.next}")
            lines += ["", f"Next: `{self.next}`"]
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a") as file:
                file.write("\n".join(lines) + "\n\n")


# --- the stack's memory ---------------------------------------------------------------------------
@dataclass(frozen=True)
class History:
    """What a stack was told to run, and what completed."""

    told: ReleaseRecord | None
    """By the last release or rollback."""
    completed: tuple[Release, ...]
    """Whose smoke run completed, the newest first."""

    @property
    def settled(self) -> Release | None:
        """What the stack runs, if the last command came to its end."""
        return self.told.release if self.told and self.told.completed else None

    def before(self) -> Release | None:
        """The release to go back to."""
        if self.settled:
            return next(iter(self.completed[1:]), None)
        # A rollback that didn't complete goes where it wanted to.
        wanted = [each for each in self.completed if self.told and each.same(self.told.release)]
        return next(iter([*wanted, *self.completed]), None)

    def with_newest(self, release: Release) -> tuple[Release, ...]:
        """The completed releases once this one has; gone back to, what came after is forgotten."""
        at = next((i + 1 for i, each in enumerate(self.completed) if each.same(release)), 0)
        kept = (release, *self.completed[at:])[:KEPT]
        while len(HISTORY.dump_json(kept)) > MAX_BYTES:
            kept = kept[:-1]
        return kept


def read_history(cloud: EcsTasks, names: Names) -> History:
    told = cloud.read_parameter(names.parameter(RELEASE))
    completed = cloud.read_parameter(names.parameter(RELEASES))
    return History(
        ReleaseRecord.model_validate_json(told) if told != NOTHING_DONE else None,
        HISTORY.validate_json(completed),
    )


# --- commands -------------------------------------------------------------------------------------
def release(
    pulumi: Pulumi, wanted: Release, steps: Steps, connect: Connect = aws, database: str = ""
) -> None:
    """Bring a release to a stack; nothing happens where it is there already."""
    # A new stack has no database to go back, so none is made only to say that.
    outputs = look(pulumi, steps, make=not database)
    history = read_history(connect(outputs), Names(pulumi.stack))
    if history.settled and history.settled.tree == wanted.tree:
        if database:
            raise StackError(
                f"{pulumi.stack} runs {short(history.settled)} already, which is made of the same "
                "files. Its database belongs to that Prefect: leave DATABASE= out"
            )
        runs = f"it runs {short(history.settled)}, which is made of the same files"
        steps.title = f"{pulumi.stack}: nothing to deploy, {runs}"
        return
    bring(pulumi, outputs, wanted, history, steps, connect, database)


def rollback(pulumi: Pulumi, steps: Steps, connect: Connect = aws, database: str = "") -> None:
    """Bring the release to a stack that completed there before."""
    outputs = look(pulumi, steps)
    history = read_history(connect(outputs), Names(pulumi.stack))
    wanted = history.before()
    if wanted is None:
        runs = f" but {short(history.settled)}, which it runs" if history.settled else ""
        raise StackError(
            f"there is nothing to go back to: {pulumi.stack} completed no release{runs}"
        )
    bring(pulumi, outputs, wanted, history, steps, connect, database)


def smoke(pulumi: Pulumi, steps: Steps, connect: Connect = aws) -> None:
    outputs = pulumi.outputs()
    if not outputs.get("flow_image"):
        raise StackError(outputs.get("next") or f"{pulumi.stack} isn't up: make up")
    with steps("smoke run"):
        run_deployer(pulumi, outputs, connect(outputs), "--smoke")


def look(pulumi: Pulumi, steps: Steps, *, make: bool = False) -> dict[str, Any]:
    """The stack's outputs; a new stack is made first, to have somewhere to write."""
    settings, images = pulumi.settings(), ("flowImage", "workerImage", "mlflowImage")
    if pins := [name for name in images if settings.get(f"trainyard:{name}")]:
        raise StackError(
            f"{' and '.join(pins)} in the settings of {pulumi.stack} would win over the release: "
            f"{typed(pulumi.stack, 'config rm NAME')}, for each"
        )
    outputs = pulumi.outputs()
    if not outputs and make:
        with steps("a new stack"):
            pulumi.up()
        outputs = pulumi.outputs()
    if "tasks" not in outputs:
        raise StackError(f"{pulumi.stack} is no environment, or isn't up yet")
    return outputs


def bring(
    pulumi: Pulumi,
    outputs: dict[str, Any],
    wanted: Release,
    history: History,
    steps: Steps,
    connect: Connect,
    database: str,
) -> None:
    """The steps of every release: each can be repeated, and the last one makes it count."""
    names = Names(pulumi.stack)
    steps.title = f"{pulumi.stack}: {replacing(wanted, history.told)}"
    say(steps.title)
    if database:
        refuse_database(pulumi.stack, outputs, wanted, history)
    elif outputs["servers"]["prefect"] and history.told:
        refuse_older_prefect(wanted, history.told.release)
    with code_of(wanted, outputs) as code:
        if database:  # by the newer Prefect, which is still there: it knows both revisions
            with steps("downgrading Prefect's database"):
                downgrade = [*DOWNGRADE, "--yes", "--revision", database]
                connect(outputs).run_task("migrate-prefect", downgrade)
        # From here on the stack may be left half-way.
        steps.next = f"make {'rollback' if history.completed else 'release'} STACK={pulumi.stack}"
        note(connect(outputs), names, wanted, completed=False)
        outputs = up(pulumi, connect, steps)
        if outputs["held_back"] or outputs["flow_image"] != wanted.images.flow:
            raise StackError(
                f"{pulumi.stack} doesn't run the release: was another one started meanwhile? "
                f"{outputs['next']}"
            )
        cloud = connect(outputs)
        with steps("deployments"):
            run_deployer(pulumi, outputs, cloud, code=code)
        with steps("smoke run"):
            run_deployer(pulumi, outputs, cloud, "--smoke", code=code)
    completed = HISTORY.dump_json(history.with_newest(wanted)).decode()
    cloud.write_parameter(names.parameter(RELEASES), completed)
    note(cloud, names, wanted, completed=True)


def note(cloud: EcsTasks, names: Names, wanted: Release, *, completed: bool) -> None:
    told = ReleaseRecord(release=wanted, completed=completed)
    cloud.write_parameter(names.parameter(RELEASE), told.model_dump_json())


@contextmanager
def code_of(wanted: Release, outputs: dict[str, Any]) -> Iterator[Path]:
    """The release's prefect.yaml and deployer: its commit's, not this clone's.

    A private Prefect is told from inside, by the release's flow image, which has them.
    """
    if outputs["trainyard"]["work_pool"]["api_secret_variable"] != API_KEY:
        yield REPO
        return
    try:
        git("cat-file", "-e", f"{wanted.commit}^{{commit}}")
    except GitError as error:
        raise StackError(
            f"{error}\nThis clone has to have the commit {wanted.commit}, for what the release is "
            f"made of: `git fetch origin {wanted.commit}`, and again"
        ) from error
    with files_of(wanted.commit) as folder:
        yield folder


def refuse_older_prefect(wanted: Release, running: Release) -> None:
    """An older Prefect can't migrate, nor serve, a database that a newer one has migrated."""
    if wanted.commit == running.commit:
        return
    there, here = prefect_of(wanted), prefect_of(running)
    if not (there and here):
        unknown = short(running if there else wanted)
        say(f"not checked: whether Prefect gets older; nobody noted which one {unknown} has")
    elif there < here:
        raise StackError(
            f"{short(wanted)} has Prefect {there}, and the stack's database was migrated by Prefect"
            f" {here}: nothing was changed. The database has to go back first: see docs/"
            "operations.md, “Going back over a Prefect version”"
        )


def refuse_database(stack: str, outputs: dict[str, Any], wanted: Release, history: History) -> None:
    """A database goes back only for an older Prefect: the one that runs has to find its own."""
    if not (outputs["servers"]["prefect"] and history.told):
        raise StackError(
            f"nothing was changed: {stack} has no Prefect server of its own, so there is no "
            "database that could go back. Leave DATABASE= out"
        )
    running = [history.told.release]
    if not history.told.completed:  # on the way back: the newer one may still run
        running += history.completed[:1]
    versions = {each.commit: prefect_of(each) for each in [wanted, *running]}
    for commit, version in versions.items():
        if version is None:
            raise StackError(
                f"nothing was changed: nobody noted which Prefect {commit[:12]} has, and this "
                f"clone lacks the commit: `git fetch origin {commit}`, and again"
            )
    there, *known = [version for version in versions.values() if version]
    here = max(known, default=there)
    if there >= here:
        raise StackError(
            f"nothing was changed: {short(wanted)} has Prefect {there}, which isn't older than the "
            f"stack's, Prefect {here}, so its database mustn't go back. Leave DATABASE= out"
        )


def prefect_of(release: Release) -> Version | None:
    """Its Prefect's version; nothing where neither the record nor this clone's git has it."""
    version = release.prefect
    if not version:
        with suppress(GitError):
            version = prefect_version(git("show", f"{release.commit}:requirements/flow.txt"))
    return Version(version) if version else None


def replacing(wanted: Release, told: ReleaseRecord | None) -> str:
    """Which release takes whose place; older ones are called so where the clone knows."""
    if told is None or told.release.commit == wanted.commit:
        return short(wanted)
    try:
        git("merge-base", "--is-ancestor", wanted.commit, told.release.commit)
        what = " (older)"
    except GitError:  # it isn't, or the clone doesn't know
        what = ""
    return f"{short(wanted)}{what} in place of {short(told.release)}"


def short(release: Release) -> str:
    return release.commit[:12]


def wanted_release() -> Release:
    try:
        return Release.read(RELEASE_FILE)
    except FileNotFoundError:
        why = "isn't there: `make publish` builds the images, pushes them, and writes it"
    except ValidationError as error:
        why = f"isn't what `make publish` writes: run it again\n{error}"
    raise StackError(f"{RELEASE_FILE.relative_to(REPO)} {why}")


Command = Literal["release", "rollback", "smoke"]


def deliver(
    command: Command, stack: str, open_stack: Callable[[], Pulumi], database: str = ""
) -> int:
    """Run one command for one stack, show its steps, and give the exit code."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    steps = Steps(f"{stack}: {command}")
    try:
        if command == "release":
            wanted = wanted_release()
            release(open_stack(), wanted, steps, database=database)
        elif command == "rollback":
            rollback(open_stack(), steps, database=database)
        else:
            smoke(open_stack(), steps)
    except (StackError, BotoCoreError, ClientError) as error:
        steps.error = f"{error}"
    except KeyboardInterrupt:
        steps.error = "interrupted"
    finally:
        steps.show()
    return 1 if steps.error else 0
