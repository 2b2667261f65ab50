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

import yaml

from trainyard.aws.preview import Change, PreviewResult, preview
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import Names
from trainyard.paths import REPO
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
def deployments(before: str | None, after: str) -> Iterator[str]:
    """What differs of two prefect.yaml. Their templates are compared as they are written."""
    old, new = _fields(before or ""), _fields(after)
    rows = []
    for name in sorted({*old, *new}):
        if name not in old:
            rows.append(f"| added | {name} | {_code(new[name].get('entrypoint', ''))} |")
        elif name not in new:
            rows.append(f"| removed | {name} | {_code(old[name].get('entrypoint', ''))} |")
        elif old[name] != new[name]:
            changed = [
                f"{field}: {_code(old[name].get(field, ''))} → {_code(new[name].get(field, ''))}"
                for field in {**new[name], **old[name]}
                if old[name].get(field) != new[name].get(field)
            ]
            rows.append(f"| changed | {name} | {'<br>'.join(changed)} |")
    if not rows:
        yield "**Deployments**: no changes"
        return
    yield f"**Deployments**: {len(rows)} differ\n"
    yield "| | deployment | |\n|---|---|---|"
    yield from rows


def _fields(text: str) -> dict[str, dict[str, str]]:
    """Deployment -> place of a value in it -> the value."""
    config = yaml.safe_load(text) or {}
    shared = {key: config[key] for key in ("build", "push", "pull") if config.get(key)}
    found = {}
    for deployment in config.get("deployments") or ():
        fields = dict(_flat("", {**shared, **deployment}))
        name = fields.pop("name", "?")
        if name in found:  # of another flow
            name = f"{name} ({fields.get('entrypoint', '?')})"
        found[name] = fields
    return found


def _flat(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(f"{where}.{key}" if where else str(key), each)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for index, each in enumerate(value):
            named = each.get("slug") or each.get("name") if isinstance(each, dict) else None
            yield from _flat(f"{where}[{named or index}]", each)
    else:
        yield where, value if isinstance(value, str) else json.dumps(value, default=str)


def _code(text: str) -> str:
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else "nothing"


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
        yaml_before = before / "prefect.yaml"
        try:
            text = comment(
                stack,
                resources(stack, foreseen),
                cost(cost_of(stack, before), cost_of(stack, REPO)),
                deployments(
                    yaml_before.read_text() if yaml_before.exists() else None,
                    (REPO / "prefect.yaml").read_text(),
                ),
            )
        except yaml.YAMLError as error:
            raise StackError(f"prefect.yaml isn't YAML: {error}") from None
    COMMENT.parent.mkdir(exist_ok=True)
    COMMENT.write_text(text)
    say(text)
    return 1 if foreseen.failed else 0
