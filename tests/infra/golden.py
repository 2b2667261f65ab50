"""The resources of each profile as a table that a reviewer reads: `make generate` writes it
anew.
"""

import sys
from collections import Counter
from pathlib import Path

from infra.estimate.recorder import Recording
from tests.infra.example_stacks import stack
from trainyard.contract.profiles import PROFILES

FOLDER = Path(__file__).parent / "golden"
NAMES = ("account", *PROFILES)


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


def main() -> None:
    """Write the tables."""
    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        (FOLDER / f"{name}.md").write_text(table(stack(name)))
    sys.stdout.write(f"wrote {FOLDER.name}/*.md\n")


if __name__ == "__main__":
    main()
