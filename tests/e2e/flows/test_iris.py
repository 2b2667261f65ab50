"""DVC two ways, as whole runs: Prefect operates `dvc repro`, or owns the same stages."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort

from flows.iris import dvc, params, stages, tasks, train
from flows.iris.cli import main
from flows.iris.repro import dvc_repro
from flows.iris.train import iris_train
from flows.lifecycle.reproduce import reproduce
from tests.conftest import ROOT
from tests.e2e.flows.whole_runs import Place, artifacts, ended, run

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DVC's folder, without what the clone's own has made."""
    if not dvc.DVC.exists():
        pytest.skip("no .venv-dvc: `make test` builds it")
    made = shutil.ignore_patterns("out", "cache", "tmp", "dvc.lock", "__pycache__")
    return Path(
        shutil.copytree(params.PROJECT, tmp_path_factory.mktemp("fresh") / "iris", ignore=made)
    )


@pytest.fixture(scope="session")
def made(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `dvc repro`."""
    folder = tmp_path_factory.mktemp("made")
    project = Path(shutil.copytree(fresh, folder / "iris"))
    dvc.run(project, str(folder / "store"), "repro")
    return project


def used(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(project, tmp_path / "iris"))
    for module in (dvc, params, train):
        monkeypatch.setattr(module, "PROJECT", folder)
    return folder


@pytest.fixture
def project(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return used(fresh, tmp_path, monkeypatch)


@pytest.fixture
def made_project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return used(made, tmp_path, monkeypatch)


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3`, for DVC, which takes no device for AWS's configuration."""
    (tmp_path / "no-config").touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    return s3


def tasks_of(run: FlowRun) -> dict[str, TaskRun]:
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        return {each.name: each for each in client.read_task_runs(flow_run_filter=mine)}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since it was asked last."""
    caplog.set_level("INFO")

    def lines() -> list[str]:
        # the clients' own lines come between them
        of_runs = (r for r in caplog.records if r.name.startswith(("prefect.task", "prefect.flow")))
        found = [record.getMessage() for record in of_runs]
        caplog.clear()
        return found

    return lines


def change(project: Path, old: str, new: str, file: str = "params.yaml") -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))


def locked(project: Path) -> dict[str, str]:
    return {f"dvc.{each.path}": each.md5 for each in dvc.versions(project)}


def hashes(project: Path) -> dict[str, str]:
    return {
        str(path.relative_to(project)): md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in (project / "out").glob("*.*")
    }


def wipe(project: Path) -> None:
    for folder in ("out", ".dvc/cache"):
        shutil.rmtree(project / folder)


# --- option A: DVC owns the stages ----------------------------------------------------------------
def test_dvc_runs_what_changed_and_each_time_there_is_a_run(
    here: Place, project: Path, lines: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    first = run(dvc_repro)
    assert ended(first) == ("Completed", "")
    when = {record.getMessage(): record.created for record in caplog.records}
    said = lines()
    at = said.index("Running: dvc repro --pull")
    assert said[at + 1 : at + 4] == [
        f"CWD: {project}",
        "Running stage 'prepare':",
        "> python -m flows.iris.stages prepare",
    ]
    # as DVC prints them, and not at its end
    assert when["Running stage 'train':"] - when["Running stage 'prepare':"] > 0.3
    (metrics,) = json.loads(str(artifacts(first.id)["iris-metrics"].data))
    assert metrics == json.loads((project / stages.METRICS).read_text())
    assert f"Metrics: {json.dumps(metrics)}" in said
    (logged,) = here.runs_of(first)
    assert logged.data.metrics == metrics
    assert logged.data.params["test_size"] == "0.2"
    assert locked(project).items() <= logged.data.tags.items()
    assert len(locked(project)) == 7

    second = run(dvc_repro)
    assert second.id != first.id
    assert ended(second) == ("Completed", "")
    said = lines()
    for stage in ("prepare", "train", "evaluate"):
        assert f"Stage '{stage}' didn't change, skipping" in said
    assert "Data and pipelines are up to date." in said

    change(project, "regularization: 1.0", "regularization: 1000.0")
    changed = run(dvc_repro, show_metrics=False)
    assert ended(changed) == ("Completed", "")
    said = lines()
    assert "Stage 'prepare' didn't change, skipping" in said
    assert "Running stage 'train':" in said
    assert "Running stage 'evaluate':" in said
    assert "metrics summary" in tasks_of(second)
    assert "metrics summary" not in tasks_of(changed)


def test_a_first_try_that_fails_is_tried_again_after_two_seconds(
    here: Place,
    made_project: Path,
    lines: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main(["repro", "--fail-once", "--no-show-metrics"]) == 0
    when = {record.getMessage(): record.created for record in caplog.records}
    (failed,) = (line for line in when if "Intentional one-time failure" in line)
    assert "Retry 1/1 will start 2 second(s) from now" in failed
    assert when["Running: dvc repro --pull"] - when[failed] > 1.9
    assert not any(line.startswith("Metrics") for line in lines())


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_is_pushed_wiped_and_pulled_has_the_same_hashes(
    kind: str, made_project: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = str(tmp_path / "store") if kind == "folder" else request.getfixturevalue("bucket")
    project, lock = made_project, (made_project / "dvc.lock").read_text()
    made = hashes(project)
    assert made.items() < {each.path: each.md5 for each in dvc.versions(project)}.items()
    assert (
        made.items()
        <= {path.removeprefix("dvc."): md5 for path, md5 in locked(project).items()}.items()
    )
    dvc.run(project, store, "push", "--run-cache")
    wipe(project)
    dvc.run(project, store, "pull")
    assert hashes(project) == made
    assert (project / "dvc.lock").read_text() == lock

    # another machine, such as a container, which has no dvc.lock
    wipe(project)
    (project / "dvc.lock").unlink()
    said: list[str] = []
    dvc.run(project, store, "fetch", "--run-cache")
    dvc.run(project, store, "repro", "--pull", log=said.append)
    assert "Stage 'train' is cached - skipping run, checking out outputs" in said
    assert hashes(project) == made


def test_in_a_git_repository_dvc_leaves_its_lock_to_be_committed(
    project: Path, tmp_path: Path
) -> None:
    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=tmp_path, text=True)

    git("init", "-q")
    git("add", "-A")
    said: list[str] = []
    dvc.run(project, str(tmp_path / "store"), "repro", log=said.append)
    assert "git add dvc.lock" in [line.strip() for line in said]
    assert git("ls-files", "--others", "--exclude-standard").split() == ["iris/dvc.lock"]


# --- what goes wrong ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("dvc.yaml", "stages:", "stages: [", r"dvc\.yaml' is invalid.*line 1.*correct the file"),
        ("dvc.yaml", "cmd:", "command:", r"dvc\.yaml' .*line 3.*correct the file"),
        ("params.yaml", "seed: 42", "seed: -1", r"params\.yaml: split\.seed: Input should be gre"),
        ("data/iris.csv", "5.1,", "five,", r"iris\.csv can't be read: could not parse `five`"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    here: Place, project: Path, file: str, old: str, new: str, told: str
) -> None:
    change(project, old, new, file)
    name, message = ended(run(dvc_repro))
    assert name == "Failed"
    assert re.search(told, message), message
    assert f"in {project} " in message


def test_where_dvc_is_not_installed_that_is_said_once(
    here: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc, "DVC", ROOT / ".venv-none/bin/dvc")
    done = run(dvc_repro)
    assert "`make .venv-dvc/.dvc` does it; an image has it if" in ended(done)[1]
    assert tasks_of(done)["dvc fetch"].run_count == 1  # another try wouldn't find it either


def test_a_bucket_that_is_not_there_is_named(made_project: Path, bucket: str) -> None:
    with pytest.raises(dvc.DvcUnusableError, match=r"s3://nobody/dvc.*create it, or correct"):
        dvc.run(made_project, "s3://nobody", "push")


def test_a_remote_that_lacks_the_files_is_named(made_project: Path, tmp_path: Path) -> None:
    wipe(made_project)
    with pytest.raises(dvc.DvcUnusableError, match=r"remote: .*/none/dvc.*the remote lacks files"):
        dvc.run(made_project, str(tmp_path / "none"), "pull")


def test_a_second_command_at_once_is_told_to_wait_and_a_stopped_one_ends_its_stage(
    project: Path, tmp_path: Path
) -> None:
    change(project, "python -m flows.iris.stages prepare", "sleep 987", "dvc.yaml")
    store = str(tmp_path / "store")

    def meanwhile(line: str) -> None:
        if line == "> sleep 987":
            with pytest.raises(dvc.DvcError, match=r"busy.*run again when it has ended"):
                dvc.run(project, store, "repro")
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        dvc.run(project, store, "repro", log=meanwhile)
    assert time.monotonic() - started < 60
    sleeping = [
        each for each in psutil.process_iter(["cmdline"]) if "987" in (each.info["cmdline"] or [])
    ]
    assert not sleeping


def test_runs_of_it_are_one_at_a_time() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (limit,) = (
        each["concurrency_limit"]
        for each in deployments
        if each["entrypoint"].endswith(":dvc_repro")
    )
    assert (limit["limit"], limit["collision_strategy"]) == (1, "ENQUEUE")


# --- option B: Prefect owns the stages ------------------------------------------------------------
def states(run: FlowRun) -> dict[str, str]:
    found = tasks_of(run)
    return {name: str(found[name].state_name) for name in ("prepare", "train", "evaluate")}


def test_prefect_runs_what_changed(
    here: Place, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, cached = "Completed", "Cached"
    assert ended(first := run(iris_train)) == ("Completed", "")
    assert states(first) == {"prepare": ran, "train": ran, "evaluate": ran}
    assert states(run(iris_train)) == {"prepare": cached, "train": cached, "evaluate": cached}
    changed = run(iris_train, regularization=1e5)
    assert states(changed) == {"prepare": cached, "train": ran, "evaluate": ran}
    changed = run(iris_train, test_size=0.3)
    assert states(changed) == {"prepare": ran, "train": ran, "evaluate": ran}
    change(project, "5.1,3.5", "5.1,3.6", stages.RAW)
    assert states(run(iris_train))["prepare"] == ran
    change(project, "5.1,3.6", "5.1,3.5", stages.RAW)
    assert states(run(iris_train))["prepare"] == cached
    monkeypatch.setattr(tasks, "CODE", "another")
    assert states(run(iris_train)) == {"prepare": ran, "train": ran, "evaluate": ran}
    # a worse model doesn't win
    champion = here.client.get_model_version_by_alias("iris-species", "champion")
    assert str(champion.version) == "1"


def test_wrong_params_fail_the_run_with_their_fault(here: Place, project: Path) -> None:
    change(project, "max_iter: 1000", "max_iter: many")
    name, message = ended(run(iris_train))
    assert name == "Failed"
    assert f"{project}/params.yaml: train.max_iter: Input should be a valid integer" in message


def test_both_make_the_same_data_and_dvc_pulls_what_prefect_made(
    here: Place, made_project: Path
) -> None:
    project = made_project
    run(iris_train)
    tags = here.client.get_model_version("iris-species", "1").tags
    data = ("data/iris.csv", stages.TRAIN, stages.TEST, stages.HOLDOUT)
    assert {tags[f"dvc.{each}"] for each in data} == {
        locked(project)[f"dvc.{each}"] for each in data
    }
    made = hashes(project)
    wipe(project)
    dvc.run(project, here.store, "pull", stages.TRAIN, stages.TEST, stages.HOLDOUT)
    assert hashes(project).items() < made.items()
    assert len(hashes(project)) == 3


def test_the_cli_trains_with_what_is_given_and_else_with_params_yaml(
    here: Place, project: Path
) -> None:
    assert main(["train", "--regularization", "3", "--max-iter", "500"]) == 0
    (experiment,) = here.client.search_experiments(filter_string="name LIKE 'iris-train%'")
    (logged,) = here.client.search_runs([experiment.experiment_id])
    assert logged.data.params["regularization"] == "3.0"
    assert logged.data.params["max_iter"] == "500"
    assert logged.data.params["test_size"] == str(params.load_params().split.test_size)
    assert main(["train", "--test-size", "2"]) == 1


def test_the_cli_hands_dvc_its_command(
    here: Place, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dvc", "status", "--no-updates"]) == 0
    assert f"Running: dvc status --no-updates\nCWD: {project}" in capsys.readouterr().out
    assert main(["dvc", "--version"]) == 0
    assert "Running: dvc --version" in capsys.readouterr().out


def test_a_champion_is_reproduced(here: Place, project: Path) -> None:
    first = run(iris_train)
    change(project, "regularization: 1.0", "regularization: 1000.0")
    assert "is reproduced" in reproduce(here.client, "iris-species", "1")
    mine = FlowFilter(id=FlowFilterId(any_=[first.flow_id]))  # others run beside it
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=mine, sort=FlowRunSort.START_TIME_DESC, limit=1)
    (again,) = runs
    assert again.id != first.id
    # and not taken from the cache
    assert states(again) == dict.fromkeys(("prepare", "train", "evaluate"), "Completed")
