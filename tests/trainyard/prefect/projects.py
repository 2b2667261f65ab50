"""Projects that are deployed to a Prefect server of the tests."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter

from tests.conftest import ROOT
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from trainyard.prefect.register import register

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
        """`trainyard.prefect.deploy`, as every way of deploying runs it."""
        done = subprocess.run(
            [sys.executable, "-m", "trainyard.prefect.deploy"],
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
