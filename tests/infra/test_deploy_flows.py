"""prefect.yaml as it stands, deployed to a real Prefect server for different stacks."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse

from infra.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from infra.register import register

ROOT = Path(__file__).parents[2]


@pytest.fixture
def laptop(prefect_server: str) -> StackOutputs:
    outputs = StackOutputs(
        stack="laptop",
        prefect_api_url=prefect_server,
        tracking_uri="http://127.0.0.1:5000",
        artifact_store=f"/home/me/{uuid.uuid4().hex}",
        code_dir=str(ROOT),
        work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
    )
    register(outputs)
    return outputs


def deployed(outputs: StackOutputs) -> DeploymentResponse:
    environment = os.environ | deploy_environment(outputs, image="repo@sha256:abc")
    environment["PREFECT_API_URL"] = outputs.prefect_api_url
    command = [sys.executable, "-m", "infra.deploy_flows"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name("taxi-train/taxi-train")


def test_a_stack_decides_whether_schedules_start_runs_and_on_which_data(
    laptop: StackOutputs,
) -> None:
    for active, data in ((True, "synthetic"), (False, "tlc"), (True, "s3://lake/taxi/")):
        stack = laptop.model_copy(update={"active_schedules": active, "training_data": data})
        deployment = deployed(stack)
        assert [schedule.active for schedule in deployment.schedules] == [active]
        assert deployment.parameters["data"] == data
