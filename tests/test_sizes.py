"""No function is over 60 lines, no module over 400: longer ones are here, each with the reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

FUNCTION, MODULE = 60, 400
MODULES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("flows", "infra", "trainyard")
    for path in (ROOT / folder).rglob("*.py")
)
EXEMPT = {
    "trainyard/__main__.py": "a list of commands",
    "trainyard/contract/settings.py": "a table of settings",
    "trainyard/prefect/automations.py automations": "a list of automations",
}


def too_long(module: str) -> Iterator[str]:
    text = (ROOT / module).read_text()
    if len(text.splitlines()) > MODULE:
        yield module
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION:
            yield f"{module} {node.name}"


def test_what_is_too_long_has_its_reason_and_every_reason_its_length() -> None:
    assert {name for module in MODULES for name in too_long(module)} == set(EXEMPT)


@pytest.mark.parametrize(
    ("lines", "found"), [(60, []), (61, ["x.py f"]), (401, ["x.py", "x.py f"])]
)
def test_a_line_more_is_too_long(
    lines: int, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_sizes.ROOT", tmp_path)
    (tmp_path / "x.py").write_text("def f():\n" + "    pass\n" * (lines - 1))
    assert list(too_long("x.py")) == found
