"""Projects that are deployed to a Prefect server of the tests."""

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml
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
def fit(rows: int = 1):
    "Fit to rows."
"""


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        made = ("id", "deployment_id", "owner_resource", "created", "updated")
        return {k: _without_ids(v) for k, v in value.items() if k not in made}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


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

    def write(self, *deployments: dict[str, Any]) -> None:
        """Write prefect.yaml; the deployments are `fit/all` where they don't say otherwise."""
        known = {"name": "all", "entrypoint": "flows.py:fit"}
        listed = [known | each for each in deployments]
        (self.folder / "prefect.yaml").write_text(
            YAML.replace("deployments:\n", yaml.safe_dump({"deployments": listed}))
        )

    def holds(self, name: str = "fit/all") -> dict[str, Any]:
        """What Prefect holds of a deployment, without what it makes itself."""
        found = self.client.read_deployment_by_name(name)
        made = {"id", "created", "updated", "created_by", "updated_by", "flow_id", "status"}
        made |= {"last_polled", "work_queue_id", "version_id", "version_info", "schedules"}
        made |= {"concurrency_limit", "global_concurrency_limit"}
        limit = found.global_concurrency_limit
        schedules = [
            each.model_dump(include={"slug", "active", "parameters"}) | {"when": str(each.schedule)}
            for each in found.schedules
        ]
        owned = self.client.read_resource_related_automations(f"prefect.deployment.{found.id}")
        return found.model_dump(mode="json", exclude=made) | {
            "limit": limit and limit.limit,
            "schedules": sorted(schedules, key=lambda each: str(each["slug"])),
            "triggers": [_without_ids(each.model_dump(mode="json")) for each in owned],
        }

    def forget(self) -> None:
        self.client.delete_deployment(self.client.read_deployment_by_name("fit/all").id)

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
