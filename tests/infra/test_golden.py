"""The resource tables in golden/ are what the program makes."""

import pytest

from tests.infra import golden
from tests.infra.example_stacks import stack


@pytest.mark.parametrize("name", golden.NAMES)
def test_a_changed_stack_shows_in_its_table(name: str) -> None:
    kept = (golden.FOLDER / f"{name}.md").read_text()
    assert golden.table(stack(name)) == kept, "if that is meant: make generate"
