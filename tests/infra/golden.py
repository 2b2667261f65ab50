"""The resources of each profile as a table that a reviewer reads: `python -m tests.infra.golden`
writes it anew.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from infra import recorder
from infra.readiness import Servers, note
from infra.recorder import Recording

FOLDER = Path(__file__).parent / "golden"
DIGEST = f"registry.example/trainyard@sha256:{'a' * 64}"
IMAGES: dict[str, Any] = {"flowImage": DIGEST, "workerImage": DIGEST, "mlflowImage": DIGEST}
ACCOUNT: dict[str, Any] = {
    "stack": "account",
    "kind": "account",
    "githubRepository": "acme/rides",
    "githubOwnerId": "11",
    "githubRepositoryId": "22",
    "stateBucket": "acme-state",
}


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


def stacks() -> dict[str, Recording]:
    """What is shown: each profile in running order, with the stack's own servers."""
    noted = note(Servers(mlflow=DIGEST, prefect=DIGEST))
    made = {
        profile: recorder.run(profile=profile, noted=noted, **IMAGES)
        for profile in ("minimal", "standard", "ha")
    }
    return {**made, "account": recorder.run(**ACCOUNT)}


def main() -> None:
    """Write the tables."""
    FOLDER.mkdir(exist_ok=True)
    for name, stack in stacks().items():
        (FOLDER / f"{name}.md").write_text(table(stack))
    sys.stdout.write(f"wrote {FOLDER.name}/*.md\n")


if __name__ == "__main__":
    main()
