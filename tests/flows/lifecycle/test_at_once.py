"""Runs that finish at once: real processes, one MLflow, one Prefect server with its lock."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from mlflow import MlflowClient

from flows.lifecycle.gate import Verdict
from flows.lifecycle.registry import REPLACED_TAG
from flows.lifecycle.tasks import LoggedModel
from tests.conftest import ROOT
from tests.flows.lifecycle.models import SPEC, Pipeline, wrong_by

pytestmark = pytest.mark.server


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose MLflow is a file that processes share."""
    monkeypatch.setattr("flows.wine.spec.TESTED", SPEC, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", str(tmp_path / "store"))
    with chdir(tmp_path):
        client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        yield Pipeline(client, str(tmp_path / "store"), SPEC)


def at_once(folder: Path, api: str, what: str, *arguments: str) -> list[str]:
    """Let a process for each argument do it at the same moment; gives their results."""
    names = [str(number) for number in range(len(arguments))]
    environment = os.environ | {"PREFECT_API_URL": api, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.flows.lifecycle.at_once", folder, name, what, argument],
            env=environment,
            cwd=folder,
        )
        for name, argument in zip(names, arguments, strict=True)
    ]
    try:
        end = time.monotonic() + 120
        while not all((folder / f"ready-{name}").exists() for name in names):
            assert all(process.poll() is None for process in processes)
            assert time.monotonic() < end
            time.sleep(0.05)
        (folder / "go").touch()
        assert [process.wait(120) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(folder / f"result-{name}").read_text() for name in names]


@contextmanager
def reading(pipeline: Pipeline) -> Iterator[list[str]]:
    """Ask for the champion all the while; gives the versions it was, in their order."""
    seen: list[str] = []
    over = Event()

    def read() -> None:
        while not over.is_set():
            try:
                found = pipeline.client.get_model_version_by_alias(SPEC.name, "champion").version
            except Exception as error:  # any gap, whatever its name, is a failure below
                found = repr(error)
            if seen[-1:] != [str(found)]:
                seen.append(str(found))

    reader = Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        over.set()
        reader.join()


def test_two_runs_that_promote_at_once_have_an_order_and_readers_see_no_gap(
    shared: Pipeline, tmp_path: Path, prefect_server: str
) -> None:
    shared.champion_of(2.0)
    good, better = shared.register(1.0), shared.register(0.0)
    with reading(shared) as seen:
        results = at_once(tmp_path, prefect_server, "promote", good, better)
    of_good, of_better = map(Verdict.model_validate_json, results)
    assert of_better.promoted
    # either the good one came first and was beaten, or it came second and lost
    order = ["1", good, better] if of_good.promoted else ["1", better]
    assert of_good.champion == ("1" if of_good.promoted else better)
    assert of_better.champion == order[-2]
    assert (shared.aliases()["champion"], shared.aliases()["previous"]) == (better, order[-2])
    assert shared.tags(better)[REPLACED_TAG] == order[-2]
    assert [*dict.fromkeys(seen)] == seen
    assert set(seen) <= set(order), "what a reader saw"
    assert (seen[0], seen[-1]) == ("1", better)


def test_two_processes_that_register_one_run_at_once_make_one_version(
    shared: Pipeline, tmp_path: Path, prefect_server: str
) -> None:
    uri, run = shared.logged(wrong_by(1.0))
    lineage = shared.lineage()
    model = LoggedModel(
        run_id=run, uri=uri, description="one", seen=lineage.seen, holdout=lineage.holdout
    )
    file = tmp_path / "model.json"
    file.write_text(model.model_dump_json())
    assert at_once(tmp_path, prefect_server, "register", str(file), str(file)) == ["1", "1"]
    assert shared.numbers() == ["1"]
    assert shared.aliases() == {"challenger": "1"}
