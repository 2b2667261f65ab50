"""The images, built once for all tests."""

import pytest

from trainyard.delivery import images
from trainyard.delivery.images import Built
from trainyard.tools.docker import docker_command


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    if docker_command() is None:
        pytest.skip("images need more: no Docker engine answers")
    return images.build_all("x86_64")
