"""The resources of each profile, as tables that reviewers read: `make generate` writes them."""

from collections import Counter

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


# Not parametrized: then syrupy tells of a table that no stack has any more, in every run.
def test_a_changed_stack_shows_in_its_table(snapshot: SnapshotAssertion) -> None:
    for name in ("account", *PROFILES):
        kept = snapshot(name=name, extension_class=Markdown)
        assert table(stack(name)) == kept, "if that is meant: make generate"
