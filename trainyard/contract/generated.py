"""The marks of the parts of files that are generated."""

import re


def between_marks(text: str, name: str, content: str) -> str:
    """Replace what stands between the two marks of a generated part."""
    marks = rf"(generated: {name}[^\n]*\n).*?(?=[^\n]*end of {name})"
    return re.sub(marks, lambda found: found.group(1) + content, text, flags=re.DOTALL)
