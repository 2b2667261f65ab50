"""The resource tables in golden/ are what the program makes."""

import pytest

from infra.settings import PROFILES
from tests.infra import golden


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return {name: golden.table(stack) for name, stack in golden.stacks().items()}


@pytest.mark.parametrize("name", [*PROFILES, "account"])
def test_a_changed_stack_shows_in_its_table(name: str, tables: dict[str, str]) -> None:
    kept = (golden.FOLDER / f"{name}.md").read_text()
    assert tables[name] == kept, "if that is meant: python -m tests.infra.golden"
