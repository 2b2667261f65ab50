"""A stack's work pool on ECS, by Prefect's own worker, and what AWS is asked for in the end."""

import asyncio
import difflib
import json
import logging
import uuid
from contextlib import suppress
from typing import Any

import boto3
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.context import use_profile
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    Profile,
)
from prefect.utilities.schema_tools import validate
from prefect_aws.workers import ecs_worker
from prefect_aws.workers.ecs_worker import ECSJobConfiguration, ECSWorker
from prefect_docker.worker import DockerWorkerJobConfiguration
from syrupy.assertion import SnapshotAssertion

from infra.components.fargate import Container
from tests.conftest import ROOT
from tests.snapshots import Diff, Json
from trainyard.contract.fargate_sizes import Size
from trainyard.contract.outputs import DockerWorkPool, EcsWorkPool, StackOutputs
from trainyard.prefect.work_pool import base_job_template

pytestmark = pytest.mark.server

RENEW = "if that is meant: make generate"
CLOUD = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
SECRETS = "arn:aws:secretsmanager:us-east-1:000000000000:secret"
ROLES = "arn:aws:iam::000000000000:role"
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/trainyard/flow@sha256:abc"


def stack(prefect: str) -> StackOutputs:
    """What the Pulumi program hands on: with Prefect Cloud, or with a server of its own."""
    cloud = prefect == "cloud"
    return StackOutputs(
        stack="dev",
        prefect_api_url=CLOUD if cloud else "http://prefect.dev.trainyard.internal:4200/api",
        tracking_uri="http://mlflow.dev.trainyard.internal:5000",
        artifact_store="s3://trainyard-dev-artifacts/flows",
        code_dir="/app",
        work_pool=EcsWorkPool(
            name="trainyard-dev",
            region="us-east-1",
            cluster_arn="arn:aws:ecs:us-east-1:000000000000:cluster/trainyard-dev",
            vpc_id="vpc-1",
            subnet_ids=("subnet-a", "subnet-b"),
            security_group_ids=("sg-1",),
            assign_public_ip=not cloud,
            capacity_provider="FARGATE" if cloud else "FARGATE_SPOT",
            cpu_architecture="ARM64" if cloud else "X86_64",
            execution_role_arn=f"{ROLES}/flows-execution",
            task_role_arn=f"{ROLES}/flows-task",
            log_group="/trainyard/dev/flows",
            queue_name="trainyard-dev-ecs-events",
            environment={"MLFLOW_TRACKING_USERNAME": "admin"},
            secrets={"MLFLOW_TRACKING_PASSWORD": f"{SECRETS}:mlflow:password::v1"},
            api_secret_variable="PREFECT_API_KEY" if cloud else "PREFECT_API_AUTH_STRING",
            api_secret=f"{SECRETS}:prefect-key" if cloud else f"{SECRETS}:prefect:auth::v1",
        ),
    )


class Ecs:
    """An emulator's ECS for one worker, and what it was asked."""

    def __init__(self, url: str) -> None:
        session = boto3.Session("test", "test", region_name="us-east-1")
        self.client = session.client("ecs", endpoint_url=url)
        self.client.create_cluster(clusterName="trainyard-dev")
        iam = session.client("iam", endpoint_url=url)
        for role in ("flows-execution", "flows-task"):
            with suppress(iam.exceptions.EntityAlreadyExistsException):
                iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        self.deployment = uuid.uuid4()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.client.meta.events.register("provide-client-params.ecs", self._keep)

    def _keep(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, json.loads(json.dumps(params))))

    def asked(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == operation]


@pytest.fixture
def ecs(url: str) -> Ecs:
    return Ecs(url)


def run(ecs: Ecs, outputs: StackOutputs, **job_variables: Any) -> None:
    """A worker that has just been started, with keys of its own, takes a run."""
    ecs_worker._TASK_DEFINITION_CACHE.clear()
    flow_run = FlowRun(
        id=uuid.UUID(int=3), flow_id=uuid.UUID(int=2), deployment_id=ecs.deployment, name="a-run"
    )
    settings = {
        PREFECT_API_URL: outputs.prefect_api_url,
        PREFECT_API_KEY: "the-workers-key",
        PREFECT_API_AUTH_STRING: "the-workers:password",
    }
    template = base_job_template(outputs)
    values = {"image": IMAGE, **job_variables}
    validate(values, template["variables"], raise_on_error=True)
    # a worker's own, without what this machine or other tests have set
    with use_profile(Profile(name="worker", settings=settings), include_current_context=False):
        job = asyncio.run(ECSJobConfiguration.from_template_and_values(template, values))
        job.prepare_for_flow_run(flow_run)
        worker = ECSWorker(work_pool_name=outputs.work_pool.name)
        worker._prepare_and_create_task(logging.getLogger(), ecs.client, job, flow_run)


def sizes() -> dict[str, dict[str, Any]]:
    """prefect.yaml's sizes: name -> job variables."""
    definitions = yaml.safe_load((ROOT / "prefect.yaml").read_text())["definitions"]
    return {name: definitions[name]["job_variables"] for name in ("small", "large", "spot")}


def asked(ecs: Ecs, prefect: str, size: str) -> str:
    run(ecs, stack(prefect), **sizes()[size] | {"image": IMAGE})
    calls = {name: ecs.asked(name) for name in ("RegisterTaskDefinition", "RunTask")}
    return json.dumps(calls, indent=2).replace(str(ecs.deployment), "DEPLOYMENT-ID") + "\n"


# Not parametrized: then syrupy tells of a snapshot that no run has any more.
def test_what_ecs_is_asked_for_a_run(url: str, snapshot: SnapshotAssertion) -> None:
    for prefect in ("cloud", "self-hosted"):
        kept = snapshot(name=prefect, extension_class=Json)
        assert asked(Ecs(url), prefect, "small") == kept, RENEW


def test_what_ecs_is_asked_otherwise_for_a_run_of_another_size(
    url: str, snapshot: SnapshotAssertion
) -> None:
    usual = asked(Ecs(url), "cloud", "small").splitlines(True)
    for size in ("large", "spot"):
        other = asked(Ecs(url), "cloud", size).splitlines(True)
        diff = "".join(difflib.unified_diff(usual, other, n=1))
        assert diff == snapshot(name=size, extension_class=Diff), RENEW


@pytest.mark.parametrize("prefect", ["cloud", "self-hosted"])
def test_no_secret_is_in_what_ecs_is_asked(ecs: Ecs, prefect: str) -> None:
    run(ecs, stack(prefect))
    assert ecs.asked("RunTask")
    assert "the-workers" not in json.dumps(ecs.calls)


def test_a_worker_that_is_replaced_registers_no_new_revision(ecs: Ecs) -> None:
    for _ in range(2):
        run(ecs, stack("self-hosted"))
    assert len(ecs.asked("RegisterTaskDefinition")) == 1
    first, second = ecs.asked("RunTask")
    assert first["taskDefinition"] == second["taskDefinition"]


def test_a_deployment_may_ask_for_capacity_that_stays(ecs: Ecs) -> None:
    run(ecs, stack("self-hosted"), launch_type="FARGATE", env={"OMP_NUM_THREADS": "4"})
    (task,) = ecs.asked("RunTask")
    assert task["launchType"] == "FARGATE"
    assert "capacityProviderStrategy" not in task
    told = task["overrides"]["containerOverrides"][0]["environment"]
    names = {each["name"] for each in told}
    assert {"OMP_NUM_THREADS", "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"} <= names


def test_a_deployment_may_ask_for_the_largest_task_and_disk(ecs: Ecs) -> None:
    run(ecs, stack("self-hosted"), cpu=16384, memory=122880, disk=200)
    (definition,) = ecs.asked("RegisterTaskDefinition")
    assert (definition["cpu"], definition["memory"]) == ("16384", "122880")
    assert definition["ephemeralStorage"] == {"sizeInGiB": 200}


def test_a_run_without_an_image_is_refused_when_it_is_deployed() -> None:
    variables = base_job_template(stack("cloud"))["variables"]
    for values in ({}, {"image": ""}):
        with pytest.raises(Exception, match=r"image|''"):
            validate(values, variables, raise_on_error=True)


def test_overrides_stay_far_below_the_8192_characters_that_ecs_takes(ecs: Ecs) -> None:
    run(ecs, stack("self-hosted"))
    (task,) = ecs.asked("RunTask")
    assert len(json.dumps(task["overrides"])) < 4096


def test_a_run_is_kept_as_safe_as_the_stacks_own_containers(ecs: Ecs) -> None:
    run(ecs, stack("self-hosted"))
    (definition,) = ecs.asked("RegisterTaskDefinition")
    own = Container(image=IMAGE, command=()).definition("prefect", "log group", "us-east-1")
    (container,) = definition["containerDefinitions"]
    for safeguard in ("user", "readonlyRootFilesystem", "mountPoints", "linuxParameters"):
        assert container[safeguard] == own[safeguard]
    Size(int(definition["cpu"]), int(definition["memory"]))  # a pair that Fargate has


def containers(host_network: bool) -> StackOutputs:
    """A laptop's stack whose runs are containers."""
    return StackOutputs(
        stack="laptop",
        prefect_api_url="http://127.0.0.1:4200/api",
        tracking_uri="http://127.0.0.1:5000",
        artifact_store="/home/me/.trainyard/artifacts",
        code_dir="/app",
        work_pool=DockerWorkPool(name="pool", host_network=host_network, user="501:20"),
    )


@pytest.mark.parametrize("url", ["postgresql://me:p4ss@host/flows", ""])
def test_containers_get_the_database_that_the_worker_was_given(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAINYARD_FLOWS_DATABASE", raising=False)
    template = base_job_template(containers(True))
    if url:
        monkeypatch.setenv("TRAINYARD_FLOWS_DATABASE", url)
    job = DockerWorkerJobConfiguration.from_template_and_values(template, {"image": "flow"})
    environment = asyncio.run(job).env
    assert environment["TRAINYARD_FLOWS_DATABASE"] == url
    assert environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_containers_find_a_machines_servers_by_the_name_that_docker_gives_it() -> None:
    """On Linux they use its network; elsewhere Docker has a name for it."""
    for host_network, host in ((True, "127.0.0.1"), (False, "host.docker.internal")):
        template = base_job_template(containers(host_network))
        assert bool(template["job_configuration"]["network_mode"]) == host_network
        variables = template["variables"]["properties"]["env"]["default"]
        assert variables["MLFLOW_TRACKING_URI"] == f"http://{host}:5000"
