"""`make rehearse`: the cloud path on an emulator, from nothing to a trained model and back.

Each step prints its time and what it found; the first promise that is broken ends the rehearsal.
"""

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import httpx
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    temporary_settings,
)
from rich.console import Console
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from trainyard.aws import stack as operations
from trainyard.aws.ecs_tasks import EcsTasks
from trainyard.aws.preview import preview
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import IMAGES, REHEARSAL, Names
from trainyard.contract.outputs import EcsWorkPool, StackOutputs
from trainyard.delivery import images
from trainyard.paths import REPO
from trainyard.rehearsal import fake_prefect_cloud as cloud
from trainyard.rehearsal import iam_usage as rights
from trainyard.rehearsal.emulator_session import RehearsalError, Session, boto, missing
from trainyard.tools.errors import StackError

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
# Of its log, at a failure.
LAST_LINES = 25


@dataclass
class Rehearsal:
    """A stack on the emulator: how it is made, used, looked at and ended."""

    session: Session
    mode: Mode = "self-hosted"
    log: IO[str] | None = None
    """Where Pulumi's own lines go; the terminal without."""
    settings: dict[str, Any] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    """The deploy role's, and not root's: so that role is shown to be enough."""
    _cloud: subprocess.Popen[bytes] | None = None
    _api_key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _made: dict[str, Any] = field(default_factory=dict)

    # --- its life ---------------------------------------------------------------------------------
    def open(self, **image_ids: str) -> None:
        """Start the emulator and the account's stack; with `cloud` what stands in for Prefect's."""
        self.session.start()
        self.settings = {**MODES[self.mode], "durable": False}
        if self.mode == "cloud":
            self._start_cloud()
        self.settings |= {f"{name}Image": image for name, image in image_ids.items()}
        self.session.begin(**self.settings)
        self.credentials = self.session.deploy_role()

    @classmethod
    def attach(cls, session: Session) -> "Rehearsal":
        """The rehearsal that `make rehearse KEEP=1` or `make up STACK=rehearsal` has left up."""
        return cls(session, settings=session.settings(), credentials=session.deploy_role())

    def set(self, **settings: Any) -> None:
        """Change settings of the stack."""
        self.settings |= settings
        self.session.prepare(REHEARSAL, **self.settings)

    def unpin(self) -> None:
        """Leave the images to releases; the next one has to follow."""
        for name in IMAGES:
            self.settings.pop(f"{name}Image", None)
        self.set()

    @property
    def pulumi(self) -> Pulumi:
        """The `pulumi` command with the deploy role's credentials."""
        environment = {**self.session.environment(), **self.credentials}
        return Pulumi(
            REHEARSAL, self.session.project, environment, self.log, ask=False, advise=False
        )

    @property
    def root(self) -> Any:
        """AWS as the account's root, to look at what is there."""
        return self.session.root

    @property
    def as_deploy_role(self) -> Any:
        """AWS as the deploy role."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return boto(*[self.credentials[name] for name in names], url=self.session.url)

    def connect(self, outputs: dict[str, Any]) -> EcsTasks:
        """The stack's tasks and parameters, as the deploy role."""
        return EcsTasks(self.as_deploy_role, outputs["tasks"], clock=lambda _: time.sleep(0.3))

    def up(self) -> None:
        """`make up STACK=rehearsal`."""
        self._made = {}
        operations.up(self.pulumi, self.connect)

    def deploy(self) -> None:
        """`make deploy STACK=rehearsal`."""
        operations.deploy(self.pulumi, self.connect)

    def destroy(self) -> None:
        """`make down STACK=rehearsal`, but for the emulator, which stays.

        Raises:
            RehearsalError: something is left, in the emulator or in Docker.
        """
        self._destroy()
        if left := self.session.leftovers():
            raise RehearsalError(left)

    def close(self) -> None:
        """End the emulator and all that it started, however far the rehearsal came."""
        try:
            self._end_cloud()
        finally:
            self.session.stop()

    def _destroy(self) -> None:
        self.credentials = self.session.deploy_role()  # the first ones may have expired
        operations.down(self.pulumi, lambda _: self.as_deploy_role)

    def _end_cloud(self) -> None:
        if self._cloud:
            cloud.stop(self._cloud)
            self._cloud = None

    def _start_cloud(self) -> None:
        """Start the stand-in, and put its key where `make bootstrap` puts Prefect Cloud's."""
        secret = self.root.client("secretsmanager").create_secret(
            Name="trainyard-prefect-api-key", SecretString=self._api_key
        )
        self.settings |= {"prefectApiUrl": cloud.URL, "prefectApiKeySecretArn": secret["ARN"]}
        self._cloud = cloud.start(self.session.home / "prefect", self._api_key)

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

    def task(self, service: str) -> dict[str, Any]:
        """A service's task, as ECS describes it."""
        ecs, cluster = self.root.client("ecs"), pool_of(self.outputs).cluster_arn
        name = self.made["services"][service]
        tasks = ecs.list_tasks(cluster=cluster, serviceName=name)["taskArns"]
        if not tasks:
            raise RehearsalError(f"no task of {service} runs")
        described = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]

        def newest(task: dict[str, Any]) -> tuple[bool, datetime]:
            return task.get("healthStatus") == "HEALTHY", task["createdAt"]

        # While one takes another's place, both are listed.
        found: dict[str, Any] = max(described, key=newest)
        return found

    def address(self, service: str) -> str:
        """Where this machine reaches a service's container.

        Its name in Cloud Map resolves in containers only, here as on AWS.
        """
        attachment = self.task(service)["attachments"][0]
        details = {d["name"]: d["value"] for d in attachment["details"]}
        return str(details["privateIPv4Address"])

    def secret(self, value_from: str) -> str:
        """A secret as ECS reads it: `<arn>` or `<arn>:<field>:...`."""
        parts = value_from.split(":")
        found = self.root.client("secretsmanager").get_secret_value(SecretId=":".join(parts[:7]))
        text = str(found["SecretString"])
        return str(json.loads(text)[parts[7]]) if len(parts) > 7 and parts[7] else text

    @contextmanager
    def prefect(self) -> Iterator[SyncPrefectClient]:
        """A client of the stack's Prefect."""
        outputs = self.outputs
        url, key, login = outputs.prefect_api_url, None, None
        if self.mode == "cloud":
            key = self._api_key
        else:
            url = f"http://{self.address('prefect')}:4200/api"
            login = self.secret(pool_of(outputs).api_secret)
        # All three: what the user's profile says of them was read when Prefect was imported.
        opened = {PREFECT_API_URL: url, PREFECT_API_KEY: key, PREFECT_API_AUTH_STRING: login}
        with temporary_settings(opened), get_client(sync_client=True) as client:
            yield client

    def mlflow(
        self, route: str, body: dict[str, Any] | None = None, **query: str
    ) -> httpx.Response:
        """Ask the stack's MLflow, as its administrator, by the name that it answers to.

        With a body it is a POST.
        """
        outputs = self.outputs
        password = self.secret(pool_of(outputs).secrets["MLFLOW_TRACKING_PASSWORD"])
        host = outputs.tracking_uri.removeprefix("http://")
        return httpx.request(
            "GET" if body is None else "POST",
            f"http://{self.address('mlflow')}:5000{route}",
            params=query,
            json=body,
            auth=("admin", password),
            headers={"Host": host},
            timeout=30,
        )

    def champion(self) -> dict[str, Any]:
        """The version of the model that has the alias.

        Raises:
            RehearsalError: none has.
        """
        route = "/api/2.0/mlflow/registered-models/alias"
        answer = self.mlflow(route, name=MODEL, alias="champion")
        if answer.is_error:
            raise RehearsalError(f"{MODEL} has no champion: {answer.text}")
        found: dict[str, Any] = answer.json()["model_version"]
        return found

    def keys(self, prefix: str) -> list[str]:
        """Objects of the artifact bucket."""
        bucket = self.outputs.artifact_store.removeprefix("s3://").split("/")[0]
        pages = self.root.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in found for each in page.get("Contents", [])]

    # --- runs -------------------------------------------------------------------------------------
    def start_run(self, client: SyncPrefectClient) -> FlowRun:
        """`prefect deployment run`, of the taxi training."""
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        return client.create_flow_run_from_deployment(deployment.id, parameters=PARAMETERS)

    def wait_for(
        self,
        client: SyncPrefectClient,
        run: FlowRun,
        reached: Callable[[FlowRun], bool] = lambda run: bool(run.state and run.state.is_final()),
        minutes: float = RUN_MINUTES,
    ) -> FlowRun:
        """Wait until a run is where it should be."""
        deadline = time.monotonic() + minutes * 60
        while time.monotonic() < deadline:
            seen = client.read_flow_run(run.id)
            if reached(seen):
                return seen
            time.sleep(0.5)
        name = seen.state.name if seen.state else "without a state"
        raise RehearsalError(f"after {minutes} minutes the run {seen.name} is {name}")

    def task_runs(self, client: SyncPrefectClient, run: FlowRun) -> list[TaskRun]:
        """A run's tasks, in the order in which they began."""
        wanted = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        found = [t for t in client.read_task_runs(flow_run_filter=wanted) if t.start_time]
        return sorted(found, key=lambda each: each.start_time or each.created)  # type: ignore[arg-type, return-value]


def pool_of(outputs: StackOutputs) -> EcsWorkPool:
    """The settings of its work pool."""
    assert isinstance(outputs.work_pool, EcsWorkPool)  # noqa: S101 (every stack on AWS has one)
    return outputs.work_pool


# --- steps of `make rehearse` ---------------------------------------------------------------------
def check_unchanged(rehearsal: Rehearsal) -> str:
    """A second `make up` changes nothing."""
    foreseen = preview(rehearsal.pulumi)
    if foreseen.failed:
        raise RehearsalError("\n".join(foreseen.problems))
    if changed := {each.name: each.operation for each in foreseen.changes}:
        raise RehearsalError(f"a second `make up` would change {changed}")
    rehearsal.up()
    last = rehearsal.pulumi.api.info()
    done: dict[Any, int] = dict(last.resource_changes or {}) if last else {}
    if done.keys() != {"same"}:
        raise RehearsalError(f"a second `make up` was foreseen to change nothing, and did {done}")
    return f"{done['same']} resources unchanged"


def check_services(rehearsal: Rehearsal) -> str:
    """What `make doctor` asks of Prefect and MLflow; and MLflow's version, by its password."""
    outputs = rehearsal.pulumi.outputs()
    operations.run_deployer(rehearsal.pulumi, outputs, rehearsal.connect(outputs), "--doctor")
    # On a machine that stood still for a minute, ECS replaces what it took for unhealthy.
    patiently = Retrying(
        retry=retry_if_exception_type(httpx.ConnectError),
        wait=wait_fixed(1),
        stop=stop_after_delay(120),
        reraise=True,
    )
    version = patiently(rehearsal.mlflow, "/version").raise_for_status()
    pool = rehearsal.outputs.work_pool.name
    return f"worker online, MLflow {version.text}, pool {pool} as registered"


def train(rehearsal: Rehearsal) -> str:
    """A training run, as a task on the emulator; all that it leaves is where it belongs."""
    with rehearsal.prefect() as client:
        run = rehearsal.wait_for(client, rehearsal.start_run(client))
        if not run.state or run.state.type is not StateType.COMPLETED:
            raise RehearsalError(f"the run ended as {run.state and run.state.name}: {run.state}")
        first = rehearsal.task_runs(client, run)[0].start_time
        if not first or not run.created:
            raise RehearsalError("the run completed, but Prefect doesn't say when it began")
        waited = (first - run.created).total_seconds()
    version = rehearsal.champion()["version"]
    models = [key for key in rehearsal.keys("mlflow/") if key.endswith("MLmodel")]
    # And back: how a scoring flow gets the model.
    stored = models[0].removeprefix("mlflow/") if models else ""
    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    rehearsal.mlflow(artifacts, path=stored.rpartition("/")[0]).raise_for_status()
    rehearsal.mlflow(f"{artifacts}/{stored}").raise_for_status()
    results = rehearsal.keys("flows/results/")
    logs = rehearsal.root.client("logs").filter_log_events(
        logGroupName=pool_of(rehearsal.outputs).log_group, filterPattern=f'"{run.name}"', limit=1
    )["events"]
    for what, found in (("model in S3", models), ("result", results), ("log line", logs)):
        if not found:
            raise RehearsalError(f"the run completed, but left no {what}")
    return f"first task after {waited:.0f} s, champion version {version}, {len(results)} results"


def check_rights(rehearsal: Rehearsal) -> str:
    """Nothing was denied to the stack's roles, and they may nothing that nobody used."""
    granted = rights.grants(rehearsal.root, f"{Names(REHEARSAL).prefix}-")
    if found := rights.problems(granted, rights.decisions(rehearsal.session.log())):
        raise RehearsalError("\n".join(found))
    return f"{sum(map(len, granted.values()))} rights of {len(granted)} roles"


@contextmanager
def step(console: Console, title: str) -> Iterator[list[str]]:
    """A line of the table: the step, its time, what it found."""
    started, detail = time.monotonic(), list[str]()

    def line(mark: str) -> str:
        return f"{mark} {title:<28} {time.monotonic() - started:6.0f} s  {' '.join(detail)}"

    try:
        with console.status(title):
            yield detail
    except Exception:
        console.print(line("[red]✗[/]"), highlight=False, soft_wrap=True)
        raise
    console.print(line("[green]✓[/]"), highlight=False, soft_wrap=True)


def bring_up(rehearsal: Rehearsal, console: Console) -> None:
    """From nothing to a stack with its deployments; what is there already is left alone."""
    with step(console, "emulator"):
        rehearsal.session.start()
    with step(console, "images") as found:
        built = images.build()
        found.append(", ".join(built))
    with step(console, "the account's stack"):
        rehearsal.open(**built)
    with step(console, "make up"):
        rehearsal.up()
    with step(console, "make deploy"):
        rehearsal.deploy()


def rehearse(rehearsal: Rehearsal, console: Console, *, keep: bool = False) -> None:
    """All steps, in order, from nothing: what `make up STACK=rehearsal` has left is ended.

    With `keep` the stack stays up: the last step is left out.
    """
    rehearsal.session.stop()
    bring_up(rehearsal, console)
    steps: dict[str, Callable[[], str | None]] = {
        "make up, again": lambda: check_unchanged(rehearsal),
        "what runs": lambda: check_services(rehearsal),
        "a training run": lambda: train(rehearsal),
        "rights": lambda: check_rights(rehearsal),
        "make down": rehearsal.destroy,
    }
    if keep:
        del steps["make down"]
    for title, do in steps.items():
        with step(console, title) as found:
            found.append(do() or "")
    if not keep:
        rehearsal.close()


def perform(name: str, mode: Mode, act: Callable[[Rehearsal, Console], None], *, keep: bool) -> int:
    """Open a rehearsal for `act`, end it after, and say what went wrong; gives the exit code."""
    console = Console(file=sys.stdout)
    if lacking := missing():
        console.print(f"a rehearsal needs more: {lacking}", highlight=False)
        return 2
    home: Path = REPO / ".trainyard/rehearsal"
    home.mkdir(parents=True, exist_ok=True)
    session, path = Session(home), home / f"{name}.log"
    session.alone()
    with path.open("w", buffering=1) as log, ended_as_by_ctrl_c():
        rehearsal = Rehearsal(session, mode, log)
        done = ended = False
        try:
            with reported(console, path), redirect_stdout(log):
                act(rehearsal, console)
                done = True
        finally:
            with reported(console):
                if not keep:
                    rehearsal.close()
                elif session.runs():
                    left = "the emulator and what is in it are up: `make down STACK=rehearsal`"
                    console.print(f"{left} ends them", highlight=False)
                ended = True
    return 0 if done and ended else 1


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """`kill`, and a terminal that closes, end what runs within as Ctrl-C does: not at once."""

    def end(*_: object) -> None:
        for each in before:  # once: make passes on what it gets, and so does who ends a group
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = {s: h for s in signals if (h := signal.getsignal(s)) is not signal.SIG_IGN}  # nohup's
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def reported(console: Console, log: Path | None = None) -> Iterator[None]:
    """Say what goes wrong within, after the last lines of the log, and go on after it."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped")
    except (StackError, ClientError, httpx.HTTPError) as error:
        # Where pulumi or a task failed, they have said why there.
        said_there = log if type(error) is StackError else None
        lines = said_there.read_text().splitlines()[-LAST_LINES:] if said_there else []
        if lines:
            lines = [*lines, f"(the last lines of {said_there})"]
        text = "\n".join([*lines, str(error)])
        console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def rehearse_command(prefect: Mode, *, keep: bool) -> int:
    """Rehearse, say how it went, and give the exit code."""
    if keep and prefect == "cloud":
        raise StackError("KEEP=1: what stands in for Prefect Cloud ends with this command")
    act = partial(rehearse, keep=keep)
    return perform("rehearse", prefect, act, keep=keep)
