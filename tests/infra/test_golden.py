"""The resources of each profile, as tables that reviewers read: `make generate` writes them."""

from collections import Counter

import pytest
from syrupy.assertion import SnapshotAssertion

from infra.estimate.recorder import Recording
from tests.infra.example_stacks import stack
from tests.snapshots import Markdown
from trainyard.contract.profiles import PROFILES


def table(stack: Recording) -> str:
    """A stack as a Markdown table: component, type, name, and whether it is protected."""
    rows = []
    for resource in stack.resources:
        if not resource.custom or resource.type.startswith("pulumi:"):
            continue
        component = stack.component(resource)
        kind = resource.type.removeprefix("aws:").split(":")[0]
        module, name = kind.split("/")
        label = f"{module}.{name[:1].upper()}{name[1:]}"
        mark = "protected" if resource.protect else ""
        rows.append(f"| {component} | {label} | {resource.name} | {mark} |")
    kinds = Counter(row.split(" | ")[1] for row in rows)
    head = f"{len(rows)} resources of {len(kinds)} kinds\n\n"
    columns = "| component | type | name | |\n|---|---|---|---|\n"
    return head + columns + "\n".join(sorted(rows)) + "\n"


@pytest.mark.parametrize("name", ["account", *PROFILES])
def test_a_changed_stack_shows_in_its_table(name: str, snapshot: SnapshotAssertion) -> None:
    assert table(stack(name)) == snapshot(extension_class=Markdown), (
        "if that is meant: make generate"
    )
