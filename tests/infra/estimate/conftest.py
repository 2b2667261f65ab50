import pytest

from infra.estimate import recorder
from tests.infra.example_stacks import recorded


@pytest.fixture(autouse=True)
def recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that prices and pictures have recorded isn't recorded again."""
    monkeypatch.setattr(recorder, "run", recorded)
