import os
from collections.abc import Iterator

import pytest

from tests.conftest import emulated_aws


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an emulator answers that only the tests of this folder write to."""
    with emulated_aws(tmp_path_factory.mktemp("emulator")) as endpoint:
        yield endpoint


@pytest.fixture
def shell() -> Iterator[None]:
    """Variables of this process may change: they are as before afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
