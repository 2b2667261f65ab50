"""The smoke run, through a real worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient

from tests.conftest import ROOT
from tests.trainyard.prefect.projects import Project
from trainyard.prefect.smoke import DEPLOYMENT, LogConsole, run_smoke

pytestmark = pytest.mark.server


@pytest.fixture
def worker(project: Project) -> Iterator["subprocess.Popen[bytes]"]:
    """This clone's flows, deployed, and a worker for them."""
    outputs = project.outputs
    project.outputs = outputs.model_copy(update={"code_dir": str(ROOT)})
    code, said = project.deploy(ROOT)
    assert code == 0, said
    command = ["worker", "start", "--type", "process", "--pool", outputs.work_pool.name]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_API_URL": outputs.prefect_api_url,
        "PREFECT_HOME": str(project.folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "TRAINYARD_ARTIFACT_STORE": outputs.artifact_store,
        "MLFLOW_TRACKING_URI": outputs.tracking_uri,
    }
    with (project.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env=environment,
            cwd=project.folder,
            stdout=log,
            stderr=log,
        )
    yield process
    process.kill()
    process.wait()


def test_the_smoke_run_is_followed_to_its_end_good_or_bad(
    project: Project,
    worker: "subprocess.Popen[bytes]",
    client: SyncPrefectClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api_url = project.outputs.prefect_api_url
    assert run_smoke(api_url) == 0, (project.folder / "worker.log").read_text()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{DEPLOYMENT}: ")
    assert said[0].endswith(", from an-image")
    assert said[-1] == "Completed"
    assert any(line.startswith("  written to MLflow and read back: run ") for line in said)

    store = Path(project.outputs.artifact_store)
    store.rename(store.with_name("elsewhere"))
    store.write_text("a file in its place")
    assert run_smoke(api_url) == 1
    told = capsys.readouterr()
    assert "Failed" in told.out
    assert "the smoke run ended as Failed: " in told.err
    assert f"cannot write {store}/smoke/" in told.out

    worker.kill()
    worker.wait()
    assert run_smoke(api_url, minutes=0.05) == 1
    told = capsys.readouterr()
    assert "after 0.05 minutes, and was cancelled: no worker took it" in told.err
    name = told.out.split(": ")[1].split(",")[0]
    (run,) = [each for each in client.read_flow_runs() if each.name == name]
    assert run.state
    assert run.state.is_cancelled()


def test_a_runs_lines_are_shown_whatever_brackets_are_in_them() -> None:
    written = StringIO()
    console = LogConsole(file=written, soft_wrap=True)
    for line in ("[dim]a run[/dim]", "no folder [/tmp/a] here"):
        console.print(line)
    assert written.getvalue() == "a run\nno folder [/tmp/a] here\n"


def test_without_the_smoke_deployment_the_way_to_it_is_said(
    client: SyncPrefectClient, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in client.read_deployments():
        if each.name == "smoke":
            client.delete_deployment(each.id)
    assert run_smoke(prefect_server) == 1
    assert "`make deploy`" in capsys.readouterr().err
