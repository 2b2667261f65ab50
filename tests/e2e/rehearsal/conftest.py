"""The emulator of a rehearsal, one for all of its tests."""

import os
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from trainyard.delivery import images
from trainyard.rehearsal.emulator_session import Session, missing


@pytest.fixture(scope="session")
def emulator() -> Iterator[Session]:
    if lacking := missing():
        pytest.skip(f"a rehearsal needs more: {lacking}")
    # The home that the commands have, so that tests and commands share what is up.
    session, before = Session(home=ROOT / ".trainyard/rehearsal"), dict(os.environ)
    owner = session.owner()
    assert owner is None, f"the emulator of {owner} runs: `make down STACK=rehearsal`, and again"
    session.home.mkdir(parents=True, exist_ok=True)
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
