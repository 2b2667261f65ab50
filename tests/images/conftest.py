"""The images, built once for all tests."""

import pytest

from infra import images
from infra.docker import docker_command
from infra.images import Built


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    if docker_command() is None:
        pytest.skip("images need more: no Docker engine answers")
    return images.build_all("x86_64")
