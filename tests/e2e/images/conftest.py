"""The images, built once for all tests."""

import pytest

from tests.conftest import docker_answers
from trainyard.delivery import images
from trainyard.delivery.images import Built


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    if not docker_answers():
        pytest.skip("images need more: no Docker engine answers")
    return images.build_all("x86_64")
