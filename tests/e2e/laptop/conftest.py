"""The clone and the stack that a file of the laptop's tests shares."""

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.e2e.laptop.clones import Clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A fresh clone, in a folder with spaces in its name."""
    folder = tmp_path_factory.mktemp("laptop") / "a clone of [mine]"
    for part in ("trainyard", "flows"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    shutil.copy(ROOT / "prefect.yaml", folder)
    clone = Clone(folder)
    try:
        yield clone
    finally:
        clone.end(patience=0)


@pytest.fixture
def stack(clone: Clone) -> Clone:
    """The clone, its stack up."""
    clone.run("up")
    return clone
