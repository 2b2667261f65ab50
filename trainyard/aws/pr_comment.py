"""`make preview STACK= BASE=`: what a branch changes, as a pull request's comment.

Resources as Pulumi foresees them, dollars a month, and deployments, against the commit that the
branch left BASE at. Nothing is changed, here or in AWS, and no value of a property is shown. The
comment is .trainyard/preview.md.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainyard.aws.preview import Change, PreviewResult, preview
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import Names
from trainyard.paths import REPO
from trainyard.prefect.deployments import MISSING, differences, read_deployments
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.git import GitError, files_of, git

COMMENT = REPO / ".trainyard/preview.md"
# GitHub takes 65,536 characters.
MOST_CHARACTERS = 60_000
# What can't be had back once it is gone.
HOLDS_DATA = {"ecr/repository", "kms/key", "rds/instance", "s3/bucket"}
ORDER = ("replace", "delete", "update", "create")


# --- resources ------------------------------------------------------------------------------------
def resources(stack: str, foreseen: PreviewResult) -> Iterator[str]:
    """What an `up` would do, and which rules it would break."""
    if foreseen.problems:
        yield "**Resources**: the preview failed:\n\n```"
        yield from "\n".join(foreseen.problems).replace("```", "'''").splitlines()
        yield "```\n"
    if foreseen.violations:
        yield "**Rules** that it breaks:\n"
        yield from (f"- {violation}" for violation in foreseen.violations)
        yield ""
    if not foreseen.changes:
        if not foreseen.failed:
            yield "**Resources**: no changes"
        return
    prefix = f"{Names(stack).prefix}-"

    def name(change: Change) -> str:
        return f"{change.kind} {change.name.removeprefix(prefix)}"

    lost = [
        c for c in foreseen.changes if c.kind in HOLDS_DATA and c.operation in ("replace", "delete")
    ]
    for change in lost:
        why = f", because of {', '.join(change.properties)}" if change.properties else ""
        yield f"> [!CAUTION]\n> **{change.operation} of what holds data**: {name(change)}{why}\n"
    counts = Counter(change.operation for change in foreseen.changes)
    told = ", ".join(f"{counts[each]} to {each}" for each in _ordered(counts))
    yield f"**Resources**: {told}\n"
    yield "| | resource | what changes |\n|---|---|---|"
    for operation in _ordered(counts):
        for change in sorted(foreseen.changes, key=name):
            if change.operation == operation:
                yield f"| {operation} | {name(change)} | {', '.join(change.properties)} |"


def _ordered(operations: Mapping[str, int]) -> list[str]:
    return sorted(operations, key=lambda each: (*ORDER, each).index(each))


# --- dollars --------------------------------------------------------------------------------------
def cost_of(stack: str, code: Path) -> dict[str, float] | None:
    """Dollars a month by component, of that code with its settings; None where it can't say."""
    done = subprocess.run(  # noqa: S603
        [
            *(REPO / ".venv-infra/bin/python", "-W", "ignore", "-m", "infra.estimate.cost"),
            *(stack, "--json"),
        ],
        cwd=code,
        env={"PATH": "", "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )
    try:
        found: dict[str, float] = json.loads(done.stdout)
    except ValueError:
        return None
    return found


def cost(before: dict[str, float] | None, after: dict[str, float] | None) -> Iterator[str]:
    if after is None:
        yield "**Cost**: this branch's settings can't be priced (`make cost` says why)"
        return
    total = sum(after.values())
    if before is None:
        yield f"**Cost**: {total:.2f} $ a month; the base can't say what it costs"
        return
    rows = [
        f"| {name} | {before.get(name, 0):.2f} | {after.get(name, 0):.2f} | {difference:+.2f} |"
        for name in {**after, **before}
        if abs(difference := after.get(name, 0) - before.get(name, 0)) >= 0.005
    ]
    if not rows:
        yield "**Cost**: no changes"
        return
    was = sum(before.values())
    yield f"**Cost** while nothing trains: {was:.2f} → {total:.2f} $ a month ({total - was:+.2f})"
    yield "\n| | before | after | $ a month |\n|---|---:|---:|---:|"
    yield from rows


# --- deployments ----------------------------------------------------------------------------------
def deployments(before: Path, after: Path) -> Iterator[str]:
    """What a deploy changes of what Prefect holds, if it holds what `before` says.

    Both are a prefect.yaml; no flow is loaded, as it may be anybody's.
    """
    try:
        new = read_deployments(after)
    except ValueError:
        yield "**Deployments**: this branch's prefect.yaml can't be deployed (`make lint` says why)"
        return
    try:
        old = read_deployments(before) if before.exists() else {}
    except ValueError:
        yield "**Deployments**: the base's prefect.yaml can't be read"
        return
    shared = Counter(name for _, name in {**old, **new})
    rows = []
    for key in sorted({*old, *new}, key=lambda key: key[::-1]):
        function, name = key
        told = _cell(f"{name} (of {function})" if shared[name] > 1 else name)
        if key not in old:
            rows.append(f"| added | {told} | {_code(new[key]['entrypoint'])} |")
        elif key not in new:
            rows.append(f"| removed | {told} | {_code(old[key]['entrypoint'])} |")
        elif found := list(differences(old[key], new[key])):
            changed = [
                f"{_cell(at).replace('*', '&#42;')}: {_code(was)} → {_code(will)}"
                for at, was, will in found
            ]
            rows.append(f"| changed | {told} | {'<br>'.join(changed)} |")
    if not rows:
        yield "**Deployments**: no changes"
        return
    yield f"**Deployments**: {len(rows)} differ\n"
    yield "| | deployment | |\n|---|---|---|"
    yield from rows


def _code(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    plain = value if isinstance(value, str) and not _is_json(value) else json.dumps(value)
    return f"`{_cell(plain)}`"


def _is_json(text: str) -> bool:  # '20' is shown unlike 20
    try:
        json.loads(text or "0")
    except ValueError:
        return False
    return True


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")


# --- the comment ----------------------------------------------------------------------------------
def comment(stack: str, *sections: Iterator[str]) -> str:
    """The sections, under a mark by which the comment is found again."""
    told = ["\n".join(section) for section in sections]
    mark = f"<!-- trainyard: preview of {stack} -->\n"
    if all(each.endswith("no changes") and "\n" not in each for each in told):
        return f"{mark}`{stack}`: no changes of resources, cost or deployments.\n"
    text = mark + f"### What this changes in `{stack}`\n\n" + "\n\n".join(told) + "\n"
    if len(text) > MOST_CHARACTERS:
        kept = text[:MOST_CHARACTERS].rpartition("\n")[0]
        text = (
            f"{kept}\n\n…cut here: it is too long for a comment. `make preview` shows all of it.\n"
        )
    return text


@contextmanager
def base_of(branch: str) -> Iterator[Path]:
    """What is compared, as it was where this branch left another."""
    try:
        commit = git("merge-base", branch, "HEAD")
    except GitError as error:
        raise StackError(
            f"{error}\nBASE= has to be a commit of this clone that the branch began at, such as "
            "origin/main (`git fetch origin`; a shallow clone has too little)"
        ) from error
    there = git("ls-tree", "--name-only", commit, "infra", "trainyard", "prefect.yaml").split()
    with files_of(commit, *there) as base:
        yield base


def preview_change(stack: str, base: str) -> int:
    """Write the comment against `base`, such as origin/main; gives the preview's exit code."""
    with base_of(base) as before:
        foreseen = preview(Pulumi(stack), rules=True)
        text = comment(
            stack,
            resources(stack, foreseen),
            cost(cost_of(stack, before), cost_of(stack, REPO)),
            deployments(before / "prefect.yaml", REPO / "prefect.yaml"),
        )
    COMMENT.parent.mkdir(exist_ok=True)
    COMMENT.write_text(text)
    say(text)
    return 1 if foreseen.failed else 0
