"""The README's commands, typed by a newcomer in a clone of the repository."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.taxi.synthetic import synthetic_month
from tests.conftest import ROOT
from tests.e2e.laptop.clones import Clone, interrupt, read_until

pytestmark = pytest.mark.server

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

# What is not typed here, and where it is.
ELSEWHERE = {
    "make demo": "tests/e2e/laptop/test_laptop.py",
    "make test": "this is it",
    "make demo POOL=docker": "tests/e2e/laptop/test_containers.py",
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
    typed = r"(make|mlflow|prefect|python|\.|\.venv/bin/trainyard) "
    return [line for line in lines if re.match(typed, line)]


def block(language: str, marker: str) -> str:
    """The README's code block that has `marker` in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(each for each in found if marker in each)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone with make's environments in place: they are this one's."""
    folder = tmp_path_factory.mktemp("readme") / "trainyard"
    ignore = shutil.ignore_patterns("__pycache__")
    for part in (".github", "bench", "flows", "infra", "requirements", "trainyard"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for file in ("prefect.yaml", "Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / file, folder)
    for environment in (".uv", ".venv", ".venv-dvc"):
        if not (ROOT / environment).exists():
            pytest.skip(f"no {environment}: these tests need what `make test` builds")
        (folder / environment).symlink_to(ROOT / environment)
    clone = Clone(folder)
    try:
        yield clone
    finally:
        subprocess.run(["make", "down"], cwd=folder, env=clone.environment, check=False)
        clone.end()


def without_make(clone: Clone) -> dict[str, str]:
    """The clone's environment, without what a `make test` around this has put there."""
    return {k: v for k, v in clone.environment.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}


def typed(clone: Clone, script: str) -> str:
    """What a shell in the clone prints; it must succeed."""
    result = subprocess.run(
        ["sh", "-ec", script],
        cwd=clone.folder,
        env=without_make(clone),
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
    assert "version 1 is the new champion" in typed(newcomer, demo)

    assert left.pop(0) == "make deploy"
    assert "schedules at rest" in typed(newcomer, "make deploy")
    assert left.pop(0) == "make deploy SCHEDULES=1"
    deployed = typed(newcomer, "make deploy SCHEDULES=1")
    assert "taxi-train/taxi-train" in deployed
    assert "at rest" not in deployed

    assert left.pop(0) == ". .trainyard/env"
    run = left.pop(0)
    assert run == "prefect deployment run taxi-train/taxi-train -p num_trials=5 --watch"
    assert "Completed" in typed(newcomer, shell + run)
    preview = left.pop(0)
    assert preview == "prefect work-pool preview trainyard"
    # what schedules have planned
    planned = typed(newcomer, f"{shell}COLUMNS=200 {preview} --hours 200")
    assert "+00:00" in planned
    assert left.pop(0) == "python -m flows.taxi.train"
    script = typed(newcomer, f"{shell}python -m flows.taxi.train")
    assert "Task run 'find-best' - trial " in script
    assert "Finished in state Completed()" in script
    assert left.pop(0) == "mlflow experiments search"
    assert typed(newcomer, f"{shell}mlflow experiments search").count("taxi-train 20") == 3

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
        script.unlink()

    assert left.pop(0) == "make down"  # after the flow in ten lines, below
    assert left.pop(0) == "make demo FLOW=wine"
    assert "# wine-cultivar version 1 is the new champion" in typed(newcomer, "make demo FLOW=wine")
    assert left.pop(0) == "make demo FLOW=iris"
    assert "# iris-species version 1 is the new champion" in typed(newcomer, "make demo FLOW=iris")
    assert left.pop(0) == "make demo FLOW=transactions"
    told = typed(newcomer, "make demo FLOW=transactions")
    assert "# transaction-refund version 1 is the new champion" in told
    for said in ("the first one, rmse", "## Segments", " is reproduced: "):
        # the front door follows its link to this repository's environment, and so to its stack
        command = left.pop(0).replace(".venv/bin/trainyard", ".venv/bin/python -m trainyard")
        assert said in typed(newcomer, command)
    assert left.pop(0) == "make serve MODEL=taxi-trip-duration"
    asked_over_http(newcomer)
    assert left == []


def asked_over_http(clone: Clone) -> None:
    """Serve the champion on a free port, type the request that is shown, and press Ctrl-C."""
    with subprocess.Popen(
        ["make", "serve", "MODEL=taxi-trip-duration", "PORT=0"],
        cwd=clone.folder,
        env=without_make(clone),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            request = read_until(process, "curl ").splitlines()[-1]
            read_until(process, " answers from now on")
            assert '"predictions": [' in typed(clone, request)
            _, rest = interrupt(process)
        finally:
            process.kill()
    assert "stopped" in rest


def test_the_flow_in_ten_lines_runs(newcomer: Clone) -> None:
    folder = newcomer.folder / "flows" / "hello"
    folder.mkdir()
    (folder / "train.py").write_text(block("python", 'name="hello"'))
    with (newcomer.folder / "prefect.yaml").open("a") as file:
        file.write(block("yaml", "name: hello"))
    for command in ("make up deploy", "prefect deployment run hello/hello --watch", "make lint"):
        assert f"`{command}`" in README
    assert "prefect.yaml: no problems" in typed(newcomer, "make lint")
    assert "hello/hello" in typed(newcomer, "make up deploy")
    watched = typed(newcomer, ". .trainyard/env\nprefect deployment run hello/hello --watch")
    assert "Completed" in watched
    log = (newcomer.home / "logs" / "worker.log").read_text()
    assert "fitted: 5.0" in log


def test_a_new_pipeline_goes_as_contributing_says(newcomer: Clone) -> None:
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |\Z)", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    files, entry, contract, commands = (" ".join(step.split()) for step in steps)

    assert "`flows/<name>/__init__.py`" in files
    assert "`train.py` with a `@flow`, and its modules beside it" in files
    folder = newcomer.folder / "flows/fares"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""What a trip costs."""\n')
    (folder / "fares.py").write_text('"""Fares."""\n\nBASE = 3.0\n')
    flow = block("python", 'name="hello"').replace("hello", "fares").replace("rows / 2", "BASE")
    (folder / "train.py").write_text(
        flow.replace("flow, task\n", "flow, task\n\nfrom flows.fares.fares import BASE\n")
    )

    assert "An entry in `prefect.yaml` (copy `taxi-train`'s, with your own name" in entry
    file = newcomer.folder / "prefect.yaml"
    taxi = file.read_text().partition("deployments:\n")[2].partition("\n\n")[0] + "\n"
    own = re.sub(r"    parameters:\n(      .*\n)*", "", taxi).replace("taxi-train", "fares")
    own = own.replace("flows/taxi/train.py:taxi_train", "flows/fares/train.py:fares")
    file.write_text(f"{file.read_text()}{own}")

    (names,) = re.findall(r"`(flows\.wine [^`]*)`", contract)
    before, project = names.replace(" | flows.<name>", ""), newcomer.folder / "pyproject.toml"
    assert before in project.read_text()
    project.write_text(project.read_text().replace(before, names.replace("<name>", "fares")))

    for command in ("make lint", "make up", "make deploy"):
        assert f"`{command}`" in commands
    assert "prefect.yaml: no problems" in typed(newcomer, "make lint")
    assert "fares/fares" in typed(newcomer, "make up\nmake deploy")
    run = ". .trainyard/env\nprefect deployment run 'fares/fares' --watch"
    assert "`prefect deployment run '<flow>/<deployment>' --watch`" in commands
    assert "Completed" in typed(newcomer, run)

    sideways = "from flows.taxi.months import PATTERN\n\nBASE = float(len(PATTERN))"
    (folder / "fares.py").write_text(f'"""Fares."""\n\n{sideways}\n')
    refused = subprocess.run(
        ["make", "lint"], cwd=newcomer.folder, capture_output=True, text=True, check=False
    )
    assert "flows.fares.fares -> flows.taxi.months" in refused.stdout


def test_dvc_goes_both_ways_as_the_tutorials_page_says(newcomer: Clone) -> None:
    page = (ROOT / "docs/tutorials.md").read_text()
    (block,) = re.findall(r"^```\n(make \.venv-dvc/\.dvc .*?)^```", page, re.MULTILINE | re.DOTALL)
    *typed_here, demo = (line.split("  #")[0].strip() for line in block.splitlines())
    told = typed(newcomer, "\n".join(typed_here))
    assert demo == "make demo FLOW=iris"  # the README's
    assert len(typed_here) == 8
    ran = told.partition("Flow run finished successfully in 'Completed'")[2]
    assert "Flow run finished successfully in 'Completed'" in ran
    for stage in ("prepare", "train", "evaluate"):  # the deployment's run was the first
        assert f"Stage '{stage}' didn't change, skipping" in ran
    assert "Intentional one-time failure" in ran
    assert "iris-species version" in ran
    assert ran.endswith("Everything is up to date.\n")


def test_make_down_ends_all_that_was_started(newcomer: Clone) -> None:
    assert "the stack is stopped" in typed(newcomer, "make down")
    assert newcomer.end() == []


def test_help_explains_every_word_that_the_readme_uses(newcomer: Clone) -> None:
    listed = typed(newcomer, "make help")
    used = set(re.findall(r"(?<=[`\n])make ([a-z]+)", README + CONTRIBUTING))
    assert {word for word in used if f"  make {word} " not in listed} == set()
