"""Writes the generated parts of infra/README.md: settings, profiles, prices, and a stack's picture.

`python -m infra.readme`; a test holds the file to it.
"""

import sys
from pathlib import Path

from infra import cost, settings
from infra.recorder import Recording

README = Path(__file__).parent / "README.md"


def picture(stack: Recording) -> str:
    """A stack's components and what each needs of the others, as a Mermaid diagram."""
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


def written(text: str) -> str:
    """The README with its generated parts as the code says."""
    stack = cost.running(profile="standard")
    parts = {
        "settings": settings.table(),
        "profiles": settings.profiles(),
        "prices": cost.table(),
        "picture": picture(stack),
    }
    for name, content in parts.items():
        text = settings.between_marks(text, name, content)
    return text


def main() -> None:
    """Write them."""
    README.write_text(written(README.read_text()))
    sys.stdout.write(f"wrote {README.name}\n")


if __name__ == "__main__":
    main()
