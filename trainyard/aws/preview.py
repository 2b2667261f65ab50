"""What Pulumi would do to a stack, or finds changed in it, without doing anything: `make preview`
and `make drift` read it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainyard.aws.pulumi_cli import POLICY_PACK, Pulumi
from trainyard.tools.errors import StackError

if TYPE_CHECKING:
    from pulumi.automation import EngineEvent, StepEventMetadata

# Steps that change nothing, and those that are half of a replacement.
_NOT_SHOWN = {"same", "read", "refresh"}
_NOT_SHOWN |= {"create-replacement", "delete-replaced", "read-replacement"}


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


def preview(pulumi: Pulumi, *, rules: bool = False) -> PreviewResult:
    """What an up would do, and with `rules` which of infra/policy it would break."""
    return _watched(pulumi.api.preview, policy_packs=[POLICY_PACK] if rules else [])


def preview_refresh(pulumi: Pulumi, exclude: Sequence[str]) -> PreviewResult:
    """What differs in AWS from the stack's state, but for the resources `exclude`."""
    return _watched(pulumi.api.preview_refresh, exclude=list(exclude))


def _watched(operation: Callable[..., object], **options: Any) -> PreviewResult:
    events: list[EngineEvent] = []
    said: list[str] = []
    error: StackError | None = None
    try:
        operation(on_event=events.append, on_error=said.append, **options)
    except StackError as failure:
        error = failure
    violations = tuple(_violations(events))
    problems = tuple(_problems(events)) if error else ()
    if error and not problems and not violations:
        problems = ("".join([*said, str(error)]).strip()[-2000:],)
    return PreviewResult(tuple(_changes(events)), violations, error is not None, problems)


def _changes(events: Sequence["EngineEvent"]) -> Iterable[Change]:
    seen = set()
    for event in events:
        # A refresh knows what has changed only after it has looked.
        told = event.resource_pre_event or event.res_outputs_event
        step = told and told.metadata
        # Of components and providers what is inside them says it.
        if not step or step.op.value in _NOT_SHOWN or not step.type.startswith("aws:"):
            continue
        if step.urn not in seen:
            seen.add(step.urn)
            name = step.urn.rsplit("::", 1)[1]
            yield Change(step.op.value, step.type, name, _properties(step))


def _properties(step: "StepEventMetadata") -> tuple[str, ...]:
    paths = step.detailed_diff or step.diffs or step.keys or ()
    return tuple(dict.fromkeys(re.split(r"[.\[]", path)[0] for path in sorted(paths)))


def _violations(events: Sequence["EngineEvent"]) -> Iterable[str]:
    for event in events:
        if found := event.policy_event:
            name = (found.resource_urn or "the stack").rsplit("::", 1)[-1]
            message = " ".join(found.message.split())
            yield f"{found.enforcement_level}: {found.policy_name} ({name}): {message}"


def _problems(events: Sequence["EngineEvent"]) -> Iterable[str]:
    for event in events:
        if not event.diagnostic_event or event.diagnostic_event.severity != "error":
            continue
        # Colours are marked as <{%fg 1%}> where nobody has asked for them.
        text = re.sub(r"<\{%.*?%\}>", "", event.diagnostic_event.message).strip()
        if text not in ("preview failed", "refresh failed"):
            yield text[-2000:]
