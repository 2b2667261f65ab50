"""What the delivery tests share."""

from collections.abc import Iterator

import pytest

from tests.trainyard.delivery.registries import EmulatedRegistry, emulated


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedRegistry]:
    with emulated(tmp_path_factory.mktemp("registry")) as running:
        yield running
