"""What Pulumi would do to a stack, or finds changed in it, without doing anything: `make preview`
and `make drift` read it.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.aws.pulumi_cli import NO_PULUMI, Pulumi
from trainyard.tools.errors import StackError

# Steps that are half of a replacement, and those that change nothing.
_NOT_SHOWN = {
    "same",
    "read",
    "refresh",
    "create-replacement",
    "delete-replaced",
    "read-replacement",
}
# Components and providers: what is inside them says it.
_AWS = re.compile(r"^aws:")


@dataclass(frozen=True)
class Change:
    """One resource that isn't as it was. Of what changed only the names are kept, never values."""

    operation: str
    type: str
    name: str
    properties: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`rds/instance`, for example."""
        return self.type.removeprefix("aws:").split(":")[0]


@dataclass(frozen=True)
class PreviewResult:
    """What a preview or a refresh said."""

    changes: tuple[Change, ...]
    violations: tuple[str, ...]
    """Rules of infra/policy that are broken."""
    failed: bool
    problems: tuple[str, ...]
    """What it says of a failure, beside the rules."""


def preview(pulumi: Pulumi, *arguments: str) -> PreviewResult:
    """Run `pulumi ARGUMENTS` and read the engine's events.

    Its plain JSON knows nothing of policies, and of a refresh it tells the old state twice.
    """
    command = ["pulumi", "--cwd", str(pulumi.folder), *arguments, "--json", "--stack", pulumi.stack]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                **pulumi.environment,
                "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
                "PULUMI_SKIP_UPDATE_CHECK": "true",
            },
        )
    except FileNotFoundError:
        raise StackError(NO_PULUMI) from None
    events = list(_events(done.stdout.splitlines()))
    failed = done.returncode != 0
    violations = tuple(_violations(events))
    problems = tuple(_problems(events)) if failed else ()
    if failed and not problems and not violations:
        problems = ((done.stderr.strip() or done.stdout.strip())[-2000:],)
    return PreviewResult(tuple(_changes(events)), violations, failed, problems)


def _events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # an error that is told in several lines


def _changes(events: Sequence[dict[str, Any]]) -> Iterable[Change]:
    seen = set()
    for event in events:
        # A refresh knows what has changed only after it has looked.
        for told in ("resourcePreEvent", "resOutputsEvent"):
            step = event.get(told, {}).get("metadata", {})
            if step.get("op", "same") in _NOT_SHOWN or not _AWS.match(step["type"]):
                continue
            if step["urn"] not in seen:
                seen.add(step["urn"])
                yield Change(
                    step["op"], step["type"], step["urn"].rsplit("::", 1)[1], _properties(step)
                )


def _properties(step: dict[str, Any]) -> tuple[str, ...]:
    paths = step.get("detailedDiff") or step.get("diffs") or step.get("keys") or ()
    return tuple(dict.fromkeys(re.split(r"[.\[]", path)[0] for path in sorted(paths)))


def _violations(events: Sequence[dict[str, Any]]) -> Iterable[str]:
    for event in events:
        if found := event.get("policyEvent"):
            name = str(found.get("resourceUrn") or "the stack").rsplit("::", 1)[-1]
            message = " ".join(str(found["message"]).split())
            yield f"{found['enforcementLevel']}: {found['policyName']} ({name}): {message}"


def _problems(events: Sequence[dict[str, Any]]) -> Iterable[str]:
    for event in events:
        said = event.get("diagnosticEvent", {})
        # Colours are marked as <{%fg 1%}> where nobody has asked for them.
        text = re.sub(r"<\{%.*?%\}>", "", str(said.get("message", ""))).strip()
        if said.get("severity") == "error" and text not in ("preview failed", "refresh failed"):
            yield text[-2000:]
