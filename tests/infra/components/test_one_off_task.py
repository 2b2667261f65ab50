"""One-off tasks: what a stack from before their component keeps."""

import pytest

from tests.infra.example_stacks import stack


@pytest.mark.parametrize("what", ["Deployer", "Tunnel"])
def test_a_stack_from_before_keeps_its_tasks_under_their_new_type(what: str) -> None:
    task = stack("minimal").one("OneOffTask", f"dev-{what.lower()}")
    assert task.aliases == (f"trainyard:delivery:{what}",)
