"""The pure parts of `make image`."""

import re

import pytest

from infra import images
from infra.images import Commit, Trial

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/acme/rides.git", "https://github.com/acme/rides"),
        ("https://bot:token@github.com/acme/rides", "https://github.com/acme/rides"),
        ("git@github.com:acme/rides.git", "https://github.com/acme/rides"),
        ("ssh://git@git.acme.example:2222/rides.git", "https://git.acme.example/rides"),
        ("/srv/git/rides", ""),
        ("../rides", ""),
        ("", ""),
    ],
)
def test_the_source_label_is_a_web_address_without_credentials(remote: str, address: str) -> None:
    assert images.source_url(remote) == address


def test_a_commit_gives_the_same_labels_each_time() -> None:
    commit = Commit("https://github.com/acme/rides", REVISION, 1_795_332_813)
    assert commit.tag == "0123456789ab"
    assert commit.labels == {
        "SOURCE": "https://github.com/acme/rides",
        "REVISION": REVISION,
        "CREATED": "2026-11-22T07:33:33Z",
    }


def test_what_is_not_committed_shows_in_the_tag() -> None:
    assert Commit("", f"{REVISION}-dirty", 0).tag == "0123456789ab-dirty"


def test_a_broken_promise_says_which_and_by_what() -> None:
    kept = Trial(loads={"flows/a.py:a": (3.9, 9.0)}, packages=[("polars", 138_000_000)])
    assert images.broken_promises(749_000_000, kept, timed=True) == []
    (size,) = images.broken_promises(751_000_000, kept, timed=True)
    assert "adds 751 MB to its base, more than 750" in size
    assert "polars 138 MB" in size
    slow = Trial(loads={"flows/a.py:a": (4.1, 4.1)}, packages=[])
    (load,) = images.broken_promises(0, slow, timed=True)
    assert load.startswith("flows/a.py:a takes 4.1 s to load, more than 4")
    assert images.broken_promises(0, slow, timed=False) == []


def test_a_private_index_and_a_network_of_the_machine_reach_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TRAINYARD_BUILD_NETWORK", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert images.machine_options() == []
    monkeypatch.setenv("TRAINYARD_BUILD_NETWORK", "host")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:word@index.example/simple")
    assert images.machine_options() == ["--network=host", "--secret=id=index,env=PIP_INDEX_URL"]


@pytest.mark.parametrize("chosen", [None, ""])
def test_images_start_from_the_pinned_base_unless_a_machine_has_another(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_BASE_IMAGE", "python:of-mine")
    assert images.base_image() == "python:of-mine"
    monkeypatch.delenv("TRAINYARD_BASE_IMAGE")
    if chosen is not None:
        monkeypatch.setenv("TRAINYARD_BASE_IMAGE", chosen)
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", images.base_image())


def test_images_of_another_architecture_have_names_of_their_own() -> None:
    commit = Commit("", REVISION, 0)
    assert images.local_name("flow", commit, "x86_64") == "trainyard-flow:0123456789ab"
    assert images.local_name("flow", commit, "arm64") == "trainyard-flow:0123456789ab-arm64"
