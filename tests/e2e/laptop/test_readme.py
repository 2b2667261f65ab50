"""The README's commands, typed by a newcomer in a clone of the repository."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.taxi.synthetic import synthetic_month
from tests.conftest import ROOT
from tests.e2e.laptop.clones import Clone

pytestmark = pytest.mark.server

README = (ROOT / "README.md").read_text()

# What is not typed here, and where it is.
ELSEWHERE = {
    "make demo": "tests/e2e/laptop/test_laptop.py",
    "make test": "this is it",
    "make rehearse": "tests/e2e/rehearsal/test_rehearse.py takes its steps",
    "make demo DATA=tlc TRAIN=2023-01 VALID=2023-02": "needs TLC's site; "
    "tests/flows/taxi/test_source.py fetches months from a server of its own",
}


def commands() -> list[str]:
    """Every command of the README's plain blocks, without its comment."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [
        line.split("  #")[0].split(" # ")[0].strip()
        for block in blocks
        for line in block.splitlines()
    ]
    return [line for line in lines if re.match(r"(make|prefect|\.) ", line)]


def block(language: str, marker: str) -> str:
    """The README's code block that has `marker` in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(each for each in found if marker in each)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone with make's environments in place: they are this one's."""
    folder = tmp_path_factory.mktemp("readme") / "trainyard"
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("bench", "flows", "infra", "requirements", "trainyard"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for file in ("prefect.yaml", "Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / file, folder)
    for environment in (".uv", ".venv"):
        if not (ROOT / environment).exists():
            pytest.skip(f"no {environment}: these tests need what `make test` builds")
        (folder / environment).symlink_to(ROOT / environment)
    clone = Clone(folder)
    try:
        yield clone
    finally:
        subprocess.run(["make", "down"], cwd=folder, env=clone.environment, check=False)
        clone.end()


def typed(clone: Clone, script: str) -> str:
    """What a shell in the clone prints; it must succeed."""
    environment = {
        k: v for k, v in clone.environment.items() if k not in ("MAKEFLAGS", "MAKELEVEL")
    }
    result = subprocess.run(
        ["sh", "-ec", script],
        cwd=clone.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_a_day_with_the_stack_goes_as_the_readme_says(newcomer: Clone, tmp_path: Path) -> None:
    for month in ("2023-01", "2023-02"):
        synthetic_month(month).write_parquet(tmp_path / f"green_tripdata_{month}.parquet")
    left = [command for command in commands() if command not in ELSEWHERE]
    shell = ". .trainyard/env\n"

    assert left.pop(0) == "make demo DATA=/folder/with/months TRAIN=2023-01 VALID=2023-02"
    assert left.pop(0) == "make up"
    assert "✓ worker" in typed(newcomer, "make up")
    demo = f"make demo DATA={tmp_path} TRAIN=2023-01 VALID=2023-02 TRIALS=2"
    assert "version 1 is champion" in typed(newcomer, demo)

    assert left.pop(0) == "make deploy"
    assert "taxi-train/taxi-train" in typed(newcomer, "make deploy")

    assert left.pop(0) == ". .trainyard/env"
    run = left.pop(0)
    assert run == "prefect deployment run taxi-train/taxi-train -p num_trials=5 --watch"
    assert "Completed" in typed(newcomer, shell + run)

    assert left.pop(0) == "make status"
    assert "running" in typed(newcomer, "make status")

    champion = block("python", "mlflow.pyfunc.load_model")
    trips = f"""
import pandas
trips = pandas.read_parquet({str(tmp_path / "green_tripdata_2023-02.parquet")!r})
"""
    checked = block("python", "load_champion")
    for code, script in ((champion, tmp_path / "a.py"), (checked, newcomer.folder / "b.py")):
        script.write_text(trips + code + "\nprint('predicted', len(minutes))\n")
        assert "predicted 40000" in typed(newcomer, f"{shell}python '{script}'")

    assert left == ["make down"]  # after the flow in ten lines, below


def test_the_flow_in_ten_lines_runs(newcomer: Clone) -> None:
    folder = newcomer.folder / "flows" / "hello"
    folder.mkdir()
    (folder / "train.py").write_text(block("python", 'name="hello"'))
    with (newcomer.folder / "prefect.yaml").open("a") as file:
        file.write(block("yaml", "name: hello"))
    for command in ("make up deploy", "prefect deployment run hello/hello --watch"):
        assert f"`{command}`" in README
    assert "hello/hello" in typed(newcomer, "make up deploy")
    watched = typed(newcomer, ". .trainyard/env\nprefect deployment run hello/hello --watch")
    assert "Completed" in watched
    log = (newcomer.home / "logs" / "worker.log").read_text()
    assert "fitted: 5.0" in log


def test_make_down_ends_all_that_was_started(newcomer: Clone) -> None:
    assert "the stack is stopped" in typed(newcomer, "make down")
    assert newcomer.end() == []


def test_help_explains_every_word_that_the_readme_uses(newcomer: Clone) -> None:
    listed = typed(newcomer, "make help")
    used = set(
        re.findall(r"(?<=[`\n])make ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text())
    )
    assert {word for word in used if f"  make {word} " not in listed} == set()
