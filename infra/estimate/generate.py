"""Writes what is generated from the settings, prices and a recorded stack: the `config:` part of
infra/Pulumi.yaml, and the tables and the picture of infra/README.md.

`make generate`; a test holds the files to it.
"""

import json
import sys
from dataclasses import fields

from infra.estimate import cost
from infra.estimate.recorder import Recording
from infra.settings import Settings
from trainyard.contract.generated import between_marks
from trainyard.contract.profiles import PROFILES, Profile
from trainyard.contract.stack_config import allowed, declared, described
from trainyard.paths import PROGRAM


def picture(stack: Recording) -> str:
    """Draw a stack's components and what each needs of the others, as a Mermaid diagram."""
    named = {f"{r.type} {r.name}": r for r in stack.resources}
    edges = set()
    for resource in stack.resources:
        here = stack.component(resource)
        for dependency in resource.dependencies:
            there = stack.component(named[dependency]) if dependency in named else ""
            if here and there and here != there:
                edges.add((here, there))
    lines = [f"  {a} --> {b}" for a, b in sorted(edges)]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"]) + "\n"


def project_config() -> str:
    """Pulumi.yaml's declaration of every setting."""
    lines = ["config:", "  aws:region:", "    value: us-east-1"]
    for key, entry in declared(Settings).items():
        lines.append(f"  {key}:")
        lines += [
            f"    {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items()
        ]
    return "\n".join(lines) + "\n"


def settings_table(by: str) -> str:
    """The settings that `by` writes, as a Markdown table."""
    rows = ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
    for key, schema in described(Settings).items():
        if schema.get("by", "owner") != by:
            continue
        default = "" if schema["default"] in ("", [], {}) else f"`{json.dumps(schema['default'])}`"
        rows.append(f"| `{key}` | {default} | {allowed(schema)} | {schema['description']} |")
    return "\n".join(rows) + "\n"


def profiles_table() -> str:
    """What each profile decides, as a Markdown table."""
    rows = [f"| | {' | '.join(PROFILES)} |", "|---" * (len(PROFILES) + 1) + "|"]
    for field in fields(Profile):
        values = [getattr(profile, field.name) for profile in PROFILES.values()]
        cells = [{True: "yes", False: "no"}[v] if isinstance(v, bool) else f"{v}" for v in values]
        rows.append(f"| {field.name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def generated() -> dict[str, dict[str, str]]:
    """File of infra/ -> mark -> what stands between the marks of that name."""
    return {
        "Pulumi.yaml": {"settings": project_config()},
        "README.md": {
            "settings": settings_table("owner"),
            "bootstrap": settings_table("bootstrap"),
            "profiles": profiles_table(),
            "prices": cost.table(),
            "picture": picture(cost.running(profile="standard", flowsDatabase=True, serve=["a"])),
        },
    }


def main() -> None:
    """Write them."""
    for name, parts in generated().items():
        path = PROGRAM / name
        text = path.read_text()
        for mark, content in parts.items():
            text = between_marks(text, mark, content)
        path.write_text(text)
        sys.stdout.write(f"wrote {path.name}\n")


if __name__ == "__main__":
    main()
