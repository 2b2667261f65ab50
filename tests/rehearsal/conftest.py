"""The emulator of a rehearsal, one for all of its tests."""

import os
from collections.abc import Iterator

import pytest

from infra import images
from infra.rehearsal.session import Session, missing


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    if lacking := missing():
        pytest.skip(f"a rehearsal needs more: {lacking}")
    session, before = Session(home=tmp_path_factory.mktemp("rehearsal")), dict(os.environ)
    session.alone()
    os.environ |= {"AWS_ENDPOINT_URL": session.url, "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        session.start()
        yield session
    finally:
        session.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def image_ids(emulator: Session) -> dict[str, str]:
    """The images of this clone, built once."""
    return images.build()
