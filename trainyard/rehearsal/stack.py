"""The stack on the emulator: how it is made, used, looked at and ended."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import LogSort
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_CLIENT_RETRY_EXTRA_CODES,
    temporary_settings,
)

from trainyard.aws import stack as operations
from trainyard.aws.ecs_tasks import EcsTasks
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.outputs import EcsWorkPool, StackOutputs
from trainyard.laptop.processes import end
from trainyard.rehearsal import fake_prefect_cloud as cloud
from trainyard.rehearsal.emulator_session import RehearsalError, Session, boto, wait_until
from trainyard.tools.docker import docker

Mode = Literal["self-hosted", "cloud"]
# Who runs Prefect -> the stack's settings.
MODES: dict[Mode, dict[str, Any]] = {
    "self-hosted": {"profile": "minimal", "prefect": "self-hosted"},
    "cloud": {"profile": "standard", "prefect": "cloud"},
}
DEPLOYMENT = "taxi-train/taxi-train"
MODEL = "taxi-trip-duration"
# Small, so that the rehearsal is about the path and not about the model.
PARAMETERS = {"num_trials": 2, "max_inference_time": 1e-3}
RUN_MINUTES = 8
LAST_LINES = 10


@dataclass
class Rehearsal:
    """A stack on the emulator: how it is made, used, looked at and ended."""

    session: Session
    mode: Mode = "self-hosted"
    log: IO[str] | None = None
    """Where Pulumi's own lines go; the terminal without."""
    credentials: dict[str, str] = field(default_factory=dict)
    """The deploy role's, and not root's: so that role is shown to be enough."""
    _cloud: psutil.Popen | None = None
    _api_key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _made: dict[str, Any] = field(default_factory=dict)

    # --- its life ---------------------------------------------------------------------------------
    def open(self, **image_ids: str) -> None:
        """Start the emulator and the account's stack; with `cloud` what stands in for Prefect's."""
        self.session.start()
        settings = MODES[self.mode] | {f"{name}Image": image for name, image in image_ids.items()}
        if self.mode == "cloud":
            secret = self.aws("secretsmanager").create_secret(  # as `make bootstrap` does
                Name="trainyard-prefect-api-key", SecretString=self._api_key
            )
            settings |= {"prefectApiUrl": cloud.URL, "prefectApiKeySecretArn": secret["ARN"]}
            self._cloud = cloud.start(self.session.home / "prefect", self._api_key)
        self.session.begin(self.log, **settings)
        self.credentials = self.session.deploy_role()

    @property
    def pulumi(self) -> Pulumi:
        """The rehearsal's `pulumi`, with the deploy role's credentials."""
        environment = {**self.session.environment(), **self.credentials}
        return self.session.pulumi(environment=environment, log=self.log, advise=False)

    def aws(self, service: str) -> Any:
        """A client of the account's root, to look at what is there."""
        return self.session.root.client(service)

    @property
    def as_deploy_role(self) -> Any:
        return boto(*self.credentials.values(), url=self.session.url)

    def connect(self, outputs: dict[str, Any]) -> EcsTasks:
        return EcsTasks(self.as_deploy_role, outputs["tasks"], clock=lambda _: time.sleep(0.3))

    def up(self) -> None:
        self._made = {}
        operations.up(self.pulumi, self.connect)

    def deploy(self) -> None:
        operations.deploy(self.pulumi, self.connect)

    def destroy(self) -> None:
        """`make down STACK=rehearsal`, but for the emulator; RehearsalError where some is left."""
        self.credentials = self.session.deploy_role()  # the first ones may have expired
        operations.down(self.pulumi, lambda _: self.as_deploy_role)
        if left := self.session.leftovers():
            raise RehearsalError(left)

    def close(self) -> None:
        """End the emulator and all that it started, however far the rehearsal came."""
        try:
            if self._cloud:
                end([self._cloud])
        finally:
            self.session.stop()

    # --- what is in it ----------------------------------------------------------------------------
    @property
    def made(self) -> dict[str, Any]:
        """The outputs of the stack's last `up`."""
        self._made = self._made or self.pulumi.outputs()
        return self._made

    @property
    def outputs(self) -> StackOutputs:
        """Of them, what `register` and `prefect deploy` read."""
        return StackOutputs.model_validate(self.made["trainyard"])

    def tasks(self, service: str) -> list[dict[str, Any]]:
        ecs, cluster = self.aws("ecs"), pool_of(self.outputs).cluster_arn
        name = self.made["services"][service]
        tasks = ecs.list_tasks(cluster=cluster, serviceName=name)["taskArns"]
        if not tasks:
            raise RehearsalError(f"no task of {service} runs")
        return [*ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]]

    def task(self, service: str) -> dict[str, Any]:
        # While one takes another's place, both are listed.
        return max(
            self.tasks(service),
            key=lambda each: (each.get("healthStatus") == "HEALTHY", each["createdAt"]),
        )

    def address(self, service: str) -> str:
        return self.address_of(self.task(service))

    def address_of(self, task: dict[str, Any]) -> str:
        """A task's address: names in Cloud Map resolve in containers only, as on AWS."""
        details = {each["name"]: each["value"] for each in task["attachments"][0]["details"]}
        return str(details["privateIPv4Address"])

    def container(self, task_arn: str) -> str:
        """The container of a task, which ECS may be about to start."""
        label = f"label=com.amazonaws.ecs.task-arn={task_arn}"

        def only() -> str | None:
            found = docker("ps", "-q", "-f", label).stdout.split()
            return found[0] if len(found) == 1 else None

        return wait_until(only, 10, lambda: f"not one container runs for {task_arn}")

    def secret(self, value_from: str) -> str:
        """A secret as ECS reads it: `<arn>` or `<arn>:<field>:...`."""
        parts = value_from.split(":")
        found = self.aws("secretsmanager").get_secret_value(SecretId=":".join(parts[:7]))
        text = str(found["SecretString"])
        return str(json.loads(text)[parts[7]]) if len(parts) > 7 and parts[7] else text

    @contextmanager
    def prefect(self) -> Iterator[SyncPrefectClient]:
        outputs = self.outputs
        url, key, login = outputs.prefect_api_url, None, None
        if self.mode == "cloud":
            key = self._api_key
        else:
            url = f"http://{self.address('prefect')}:4200/api"
            login = self.secret(pool_of(outputs).api_secret)
        # All of it: what the user's profile says of it was read when Prefect was imported.
        opened = {
            PREFECT_API_URL: url,
            PREFECT_API_KEY: key,
            PREFECT_API_AUTH_STRING: login,
            PREFECT_CLIENT_RETRY_EXTRA_CODES: {500},  # as the runs do
        }
        with temporary_settings(opened), get_client(sync_client=True) as client:
            yield client

    def mlflow(
        self, route: str, body: dict[str, Any] | None = None, **query: str
    ) -> httpx.Response:
        """Ask the stack's MLflow, as its administrator, by its own name; a body is POSTed."""
        password = self.secret(pool_of(self.outputs).secrets["MLFLOW_TRACKING_PASSWORD"])
        mlflow = httpx.Client(
            base_url=f"http://{self.address('mlflow')}:5000",
            auth=("admin", password),
            headers={"Host": self.outputs.tracking_uri.removeprefix("http://")},
            timeout=30,
        )
        with mlflow:
            return mlflow.request("GET" if body is None else "POST", route, params=query, json=body)

    def champion(self) -> dict[str, Any]:
        """The version of the model that has the alias."""
        route = "/api/2.0/mlflow/registered-models/alias"
        answer = self.mlflow(route, name=MODEL, alias="champion")
        if answer.is_error:
            raise RehearsalError(f"{MODEL} has no champion: {answer.text}")
        return dict(answer.json()["model_version"])

    def keys(self, prefix: str) -> list[str]:
        """Objects of the artifact bucket."""
        bucket = self.outputs.artifact_store.removeprefix("s3://").split("/")[0]
        pages = self.aws("s3").get_paginator("list_objects_v2")
        return [*pages.paginate(Bucket=bucket, Prefix=prefix).search("Contents[].Key || `[]`")]

    # --- runs -------------------------------------------------------------------------------------
    def wait_for(
        self,
        client: SyncPrefectClient,
        run: FlowRun,
        reached: Callable[[FlowRun], bool] = lambda run: bool(run.state and run.state.is_final()),
        minutes: float = RUN_MINUTES,
    ) -> FlowRun:
        """Wait until a run is where it should be, its end by default."""

        def there() -> FlowRun | None:
            seen = client.read_flow_run(run.id)
            return seen if reached(seen) else None

        def late() -> str:
            state = client.read_flow_run(run.id).state
            said = f"after {minutes} minutes the run {run.name} is {state and state.name}; its log:"
            return "\n".join([said, *self.log_lines(client, run)[-LAST_LINES:]])

        return wait_until(there, minutes * 60, late)

    def log_lines(self, client: SyncPrefectClient, run: FlowRun) -> list[str]:
        """The last lines of a run's log that Prefect has."""
        wanted = LogFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
        logs = client.read_logs(wanted, limit=200, sort=LogSort.TIMESTAMP_DESC)
        return [log.message for log in reversed(logs)]

    def task_runs(self, client: SyncPrefectClient, run: FlowRun) -> list[TaskRun]:
        wanted = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        return client.read_task_runs(flow_run_filter=wanted)


def pool_of(outputs: StackOutputs) -> EcsWorkPool:
    assert isinstance(outputs.work_pool, EcsWorkPool)  # noqa: S101 (every stack on AWS has one)
    return outputs.work_pool
