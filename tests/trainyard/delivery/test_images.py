"""Images: what is in them, what their tags say, and what they promise."""

import re
import shutil
import subprocess
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT
from trainyard.__main__ import main
from trainyard.contract.naming import IMAGES
from trainyard.delivery import images
from trainyard.delivery.images import Commit, Trial
from trainyard.tools.errors import StackError
from trainyard.tools.git import git

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


def test_a_broken_promise_says_which_and_by_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = {"flows/a.py:a": (3.9, 9.0), images.SMOKE: (2.8, 9.0), "flows/b.py:b": (0.9, 1.0)}
    kept = Trial(loads=loads, packages=[("polars", 138_000_000)])
    assert images.broken_promises(749_000_000, kept, timed=True) == []
    (size,) = images.broken_promises(751_000_000, kept, timed=True)
    assert "adds 751 MB to its base, more than 750" in size
    assert "polars 138 MB" in size
    monkeypatch.setattr(images, "REPO", tmp_path)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/Dockerfile").write_text("ARG BASE=pinned\nARG DVC=1\nFROM x\n")
    assert images.broken_promises(949_000_000, kept, timed=True) == []
    (size,) = images.broken_promises(951_000_000, kept, timed=True)
    assert "more than 950" in size
    slow = Trial(loads=loads | {"flows/c.py:c": (4.5, 4.5)}, packages=[])
    (load,) = images.broken_promises(0, slow, timed=True)
    assert load.startswith("flows/c.py:c takes 1.6 times as long to load as the smoke flow")
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


# --- what an image holds, and what its tag knows --------------------------------------------------
# What is started in each image, on its own or by what is.
STARTED = {
    "flow": {"trainyard.prefect.__main__", "trainyard.prefect.deploy"},
    "worker": {
        "trainyard.prefect.migrate",
        "trainyard.prefect.patches.lease_storage",
        "trainyard.prefect.patches.worker",
    },
    "mlflow": {"trainyard.prefect.migrate"},
}


def reached(graph: grimp.ImportGraph, started: set[str]) -> set[str]:
    """The files of all modules of ours that are imported, and of their packages."""
    found, new = set[str](), set(started)
    while new:
        found |= new
        packages = {name.rpartition(".")[0] for name in found} - {""}
        imported = set[str]().union(*map(graph.find_upstream_modules, new))
        new = (packages | imported) - found
    names = [name.replace(".", "/") for name in found]
    folders = {name for name in names if (ROOT / name).is_dir()}
    return {f"{name}/__init__.py" if name in folders else f"{name}.py" for name in names}


def test_each_image_holds_the_modules_that_run_in_it_and_no_others() -> None:
    graph = grimp.build_graph("trainyard", exclude_type_checking_imports=True, cache_dir=None)
    for image, started in STARTED.items():
        held = {path for path in images.content(image) if path.startswith("trainyard/")}
        assert held == reached(graph, started), image


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This clone as it stands, in a repository of its own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
    monkeypatch.setattr("trainyard.tools.git.REPO", tmp_path)
    monkeypatch.setattr(images, "REPO", tmp_path)
    git("init", "-q")
    git("add", "-A")
    return tmp_path


def tags() -> dict[str, str]:
    return {image: images.content_tag(image, "x86_64") for image in IMAGES}


def test_an_edit_changes_the_tags_of_the_images_that_hold_it_and_no_others(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tags()
    assert main(["image", "--tags"]) == 0
    assert dict(line.split() for line in capsys.readouterr().out.splitlines()) == before

    def edit(*files: str) -> None:
        for file in files:
            (clone / file).write_text((clone / file).read_text() + "# edited\n")
        git("add", *files)

    content = {image: images.content(image) for image in IMAGES}
    held = {file for each in content.values() for file in each if (clone / file).is_file()}
    ours = [path for part in ("trainyard", "infra") for path in (clone / part).rglob("*.py")]
    edit(*{f"{path.relative_to(clone)}" for path in ours} - held)
    assert tags() == before
    for file in (*sorted(held), "flows/taxi/train.py"):
        edit(file)
        after = tags()
        changed = {image for image in IMAGES if after[image] != before[image]}
        holders = {i for i in IMAGES if {file, file.split("/")[0]} & {*content[i]}}
        assert changed == holders, file
        before = after
    assert holders == {"flow"}
    edit("docker/Dockerfile")
    assert not {*tags().values()} & {*before.values()}


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("code", "ADD extra /flow/extra/"),
        ("code", "COPY --chmod=755 extra /flow/extra/"),
        ("code", 'COPY ["extra", "/flow/extra/"]'),
        ("code", "COPY extra /extra/"),
        ("flow", "COPY extra /app/extra/"),
    ],
)
def test_a_line_that_the_tag_would_not_know_of_is_refused(
    stage: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").mkdir()
    real = (ROOT / "docker/Dockerfile").read_text()
    head, made, rest = real.partition(f" AS {stage}\n")
    (tmp_path / "docker/Dockerfile").write_text(f"{head}{made}{line}\n{rest}")
    monkeypatch.setattr(images, "REPO", tmp_path)
    with pytest.raises(StackError, match="docker/Dockerfile"):
        images.content("flow")


def test_a_line_may_go_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").mkdir()
    real = (ROOT / "docker/Dockerfile").read_text()
    broken = real.replace("COPY prefect.yaml /flow/", "COPY prefect.yaml \\\n    more.yaml /flow/")
    (tmp_path / "docker/Dockerfile").write_text(broken)
    before = images.content("flow")
    monkeypatch.setattr(images, "REPO", tmp_path)
    assert sorted(images.content("flow")) == sorted([*before, "more.yaml"])


def test_prefects_version_is_the_one_that_the_flow_image_is_locked_to() -> None:
    assert re.fullmatch(
        r"3\.\d+\.\d+", images.prefect_version((ROOT / "requirements/flow.txt").read_text())
    )
    assert images.prefect_version("prefect-aws==0.7.12\n") == ""
