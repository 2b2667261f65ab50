"""Deploying to a real Prefect server: what is removed, and the smoke run through a real worker."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter

from infra import deployer
from infra.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from infra.register import register
from infra.smoke import DEPLOYMENT, run_smoke
from tests.infra.test_stacks_command import OUTPUTS

ROOT = Path(__file__).parents[2]

YAML = """
definitions:
  pool: &pool
    name: "{{ $TRAINYARD_WORK_POOL }}"
    job_variables: {image: "{{ $TRAINYARD_IMAGE }}"}
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $TRAINYARD_CODE_DIR }}"}
deployments:
"""
ENTRY = """
  - name: {name}
    entrypoint: flows.py:{flow}
    tags: ["{{{{ $TRAINYARD_WORK_POOL }}}}"]
    work_pool: *pool
"""
FLOWS = """
from pathlib import Path

from prefect import flow

@flow
def load(): ...

@flow
def fit(): ...
"""
# Loads once, for the lint, and not again.
BREAKS = """
from pathlib import Path

from prefect import flow

if Path("loaded").exists():
    raise SystemExit(7)
Path("loaded").touch()

@flow
def report(): ...
"""


class Project:
    """A prefect.yaml in a folder, and a work pool that is registered."""

    def __init__(self, client: SyncPrefectClient, api_url: str, folder: Path) -> None:
        self.client, self.folder = client, folder
        self.outputs = StackOutputs(
            stack="laptop",
            prefect_api_url=api_url,
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            artifact_store=str(folder / "artifacts"),
            code_dir=str(folder),
            work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
        )
        register(self.outputs)
        (folder / "flows.py").write_text(FLOWS)

    def declare(self, *names: str) -> None:
        """Write prefect.yaml: `load/monthly`, ..."""
        pairs = [name.split("/") for name in names]
        entries = [ENTRY.format(flow=flow, name=name) for flow, name in pairs]
        (self.folder / "prefect.yaml").write_text(YAML + "".join(entries))

    def deploy(self, folder: Path | None = None) -> tuple[int, str]:
        """`infra.deploy_flows`, as every way of deploying runs it."""
        done = subprocess.run(
            [sys.executable, "-m", "infra.deploy_flows"],
            cwd=folder or self.folder,
            env={
                **os.environ,
                **deploy_environment(self.outputs, "an-image"),
                "PYTHONPATH": str(ROOT),
                "PREFECT_API_URL": self.outputs.prefect_api_url,
                "PREFECT_HOME": str(self.folder / "prefect"),
            },
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    def make_by_hand(self, name: str, *tags: str, pool: str | None = None) -> None:
        flow, name = name.split("/")
        self.client.create_deployment(
            self.client.create_flow(Flow(lambda: None, name=flow)),
            name=name,
            work_pool_name=pool or self.outputs.work_pool.name,
            tags=list(tags),
        )

    def there(self) -> set[str]:
        """Every deployment in the work pool, and every one that has its tag."""
        tagged = {"tags": {"all_": [self.outputs.work_pool.name]}}
        found = self.client.read_deployments()
        found = [d for d in found if d.work_pool_name == self.outputs.work_pool.name] + [
            *self.client.read_deployments(deployment_filter=DeploymentFilter.model_validate(tagged))
        ]
        return {f"{self.client.read_flow(d.flow_id).name}/{d.name}" for d in found}


@pytest.fixture(scope="module")
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def project(client: SyncPrefectClient, prefect_server: str, tmp_path: Path) -> Project:
    return Project(client, prefect_server, tmp_path)


# --- prune ----------------------------------------------------------------------------------------
def test_what_prefect_yaml_no_longer_has_is_removed_and_what_is_others_stays(
    project: Project,
) -> None:
    pool = project.outputs.work_pool.name
    project.make_by_hand("fit/tried")  # without the tag
    project.make_by_hand("fit/elsewhere", pool, pool=None)
    project.declare("load/monthly", "fit/monthly", "fit/weekly")
    code, said = project.deploy()
    assert code == 0, said
    assert "Deployment 'fit/elsewhere' removed" in said
    project.declare("load/monthly", "fit/weekly")
    code, said = project.deploy()
    assert code == 0, said
    assert "Deployment 'fit/monthly' removed: prefect.yaml has it no longer" in said
    assert project.there() == {"load/monthly", "fit/weekly", "fit/tried"}


def test_a_deploy_that_stops_half_way_removes_nothing_and_says_so(project: Project) -> None:
    pool = project.outputs.work_pool.name
    project.make_by_hand("fit/gone", pool)
    project.declare("load/monthly", "fit/monthly", "report/monthly", "load/weekly")
    file = project.folder / "prefect.yaml"
    file.write_text(file.read_text().replace("flows.py:report", "report.py:report"))
    (project.folder / "report.py").write_text(BREAKS)
    code, said = project.deploy()
    assert code == 7, said
    assert "removed" not in said
    assert project.there() == {"load/monthly", "fit/monthly", "fit/gone"}


# --- the smoke run --------------------------------------------------------------------------------
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
    assert f"cannot write {store}/smoke/" in told.err

    worker.kill()
    worker.wait()
    assert run_smoke(api_url, minutes=0.05) == 1
    told = capsys.readouterr()
    assert "after 0.05 minutes, and was cancelled: no worker took it" in told.err
    name = told.out.split(": ")[1].split(",")[0]
    (run,) = [each for each in client.read_flow_runs() if each.name == name]
    assert run.state
    assert run.state.is_cancelled()


def test_without_the_smoke_deployment_the_way_to_it_is_said(
    client: SyncPrefectClient, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in client.read_deployments():
        if each.name == "smoke":
            client.delete_deployment(each.id)
    assert run_smoke(prefect_server) == 1
    assert "`make deploy`" in capsys.readouterr().err


# --- after a rollback -----------------------------------------------------------------------------
def test_an_older_deployer_reads_what_a_newer_program_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = StackOutputs.model_validate(OUTPUTS).model_dump_json().replace("{", '{"fresh": 1, ', 1)
    answer = {"Parameter": {"Value": newer}}
    ssm = SimpleNamespace(get_parameter=lambda Name: answer)
    monkeypatch.setattr(deployer.boto3, "client", lambda name: ssm)
    assert deployer.read_outputs("/trainyard/dev/outputs") == StackOutputs.model_validate(OUTPUTS)
