"""`make drills`: what fails in production, made to fail on the rehearsal's stack.

Each drill breaks one thing for real, and ends with the run completed and the data right, or with
the state and the message that tell a user what to do. Drills that can't disturb each other run at
the same time: most of their time is waiting. What was observed goes into docs/reliability.md.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import LogSort
from prefect.states import Cancelled
from rich.console import Console

from trainyard.contract.generated import between_marks
from trainyard.delivery.images import current_commit
from trainyard.paths import REPO
from trainyard.prefect.automations import SETTLE, SILENCE
from trainyard.prefect.register import register_automations
from trainyard.rehearsal.emulator_session import CONTAINER, RehearsalError
from trainyard.rehearsal.rehearse import (
    DEPLOYMENT,
    MODEL,
    PARAMETERS,
    Rehearsal,
    bring_up,
    perform,
    pool_of,
)
from trainyard.tools.console import say
from trainyard.tools.docker import DockerError, docker
from trainyard.tools.errors import StackError

REPORT: Path = REPO / "docs/reliability.md"
OUTAGE = 30.0  # seconds
TRIALS = 2
# Of two runs that stage at once, milliseconds between "is described" and "is the champion".
SAME_MOMENT = 10_000
# Tasks that keep no result: they write the same page again.
REPORTS = {"report-quarantine", "write-report"}


@dataclass(frozen=True)
class Scene:
    """The stack, a client of its Prefect that was opened while all was well, and a deployment of
    the drill's own.
    """

    rehearsal: Rehearsal
    client: SyncPrefectClient
    deployment: UUID
    harm_done: Event = field(default_factory=Event)
    """From here on the next drill's start and harm don't break this one, nor this one's that."""

    # --- runs -------------------------------------------------------------------------------------
    def start(self, job_variables: dict[str, Any] | None = None) -> FlowRun:
        """Start a training run."""
        return self.client.create_flow_run_from_deployment(
            self.deployment,
            parameters={**PARAMETERS, "num_trials": TRIALS},
            job_variables=job_variables,
        )

    def wait_for_task(self, run: FlowRun, name: str = "search-xgboost") -> FlowRun:
        """Wait until a task of a run is at work."""

        def at_work(_: FlowRun) -> bool:
            found = [t for t in self.rehearsal.task_runs(self.client, run) if t.name == name]
            return any(t.state and t.state.is_running() for t in found)

        return self.rehearsal.wait_for(self.client, run, at_work, minutes=3)

    def wait_for_state(self, run: FlowRun, name: str, times: int = 1, minutes: float = 3) -> State:
        """Wait until a run has been in a state so often; gives the state."""

        def there(_: FlowRun) -> bool:
            return len(self.states(run, name)) >= times

        self.rehearsal.wait_for(self.client, run, there, minutes)
        return self.states(run, name)[times - 1]

    def states(self, run: FlowRun, name: str | None = None) -> list[State]:
        """A run's states in their order, or those of a name."""
        found = sorted(self.client.read_flow_run_states(run.id), key=lambda s: s.timestamp)
        return [state for state in found if name in (None, state.name)]

    def completed(self, run: FlowRun) -> FlowRun:
        """Wait until a run has completed; a crash is only a stage on the way."""
        ends = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
        seen = self.rehearsal.wait_for(self.client, run, lambda run: run.state_type in ends)
        if seen.state_type is not StateType.COMPLETED:
            raise RehearsalError(f"{run.name} ended as {seen.state}; {self.path(run)}")
        return seen

    def path(self, run: FlowRun) -> str:
        """The states that a run went through."""
        return " → ".join(state.name or "" for state in self.states(run))

    def log(self, run: FlowRun, *words: str) -> str:
        """The line of a run's log that has all of these words.

        Raises:
            RehearsalError: there is none within 20 seconds.
        """
        wanted = LogFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
        for _ in range(20):
            lines = self.client.read_logs(wanted, limit=200, sort=LogSort.TIMESTAMP_DESC)
            for line in lines:
                if all(word in line.message for word in words):
                    return line.message
            time.sleep(1)
        said = "\n".join(line.message for line in reversed(lines))
        raise RehearsalError(f"nothing in the log of {run.name} says {words}:\n{said}")

    def tasks(self, run: FlowRun) -> list[TaskRun]:
        """All tasks of a run and of its subflows, of all of its attempts."""
        parent = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
        family = [run, *self.client.read_flow_runs(flow_run_filter=parent)]
        return [task for each in family for task in self.rehearsal.task_runs(self.client, each)]

    # --- what must hold ---------------------------------------------------------------------------
    def check_taken_once(self, run: FlowRun) -> None:
        """A worker took a run once, to start a task for it."""
        if (found := len(self.states(run, "Pending"))) != 1:
            raise RehearsalError(f"{run.name} was taken {found} times: {self.path(run)}")

    def check_work(self, run: FlowRun) -> str:
        """What a run has finished once it didn't do again."""
        ended = [(task.name, task.state) for task in self.tasks(run) if task.state]
        done = Counter(
            name
            for name, state in ended
            if state.name == "Completed" and not state.state_details.child_flow_run_id
        )
        twice = {name for name, count in done.items() if count > 1} - REPORTS
        if twice:
            raise RehearsalError(f"done twice, though finished: {sorted(twice)}")
        cached = sum(1 for _, state in ended if state.name == "Cached")
        return f"{cached} tasks taken from the result store, none done twice"

    def check_model(self, run: FlowRun) -> str:
        """A run left one model in the registry, the champion, from one set of trials."""
        ask, api = self.rehearsal.mlflow, "/api/2.0/mlflow"
        of_run = {"filter": f"tags.`prefect.flow_run_id` = '{run.id}'", "max_results": 1}
        found = ask(f"{api}/experiments/search", of_run).raise_for_status().json()
        experiment = found["experiments"][0]["experiment_id"]
        body = {"experiment_ids": [experiment], "run_view_type": "ACTIVE_ONLY"}
        runs = ask(f"{api}/runs/search", body).raise_for_status().json()["runs"]
        expected = TRIALS + 2  # the baseline, and the trials' parent
        if len(runs) != expected:
            names = sorted(each["info"]["run_name"] for each in runs)
            raise RehearsalError(f"MLflow has {len(runs)} runs of it, not {expected}: {names}")
        ids = {each["info"]["run_id"] for each in runs}
        known = ask(f"{api}/model-versions/search", filter=f"name='{MODEL}'").raise_for_status()
        registered = [v for v in known.json()["model_versions"] if v["run_id"] in ids]
        if len(registered) != 1:
            raise RehearsalError(f"it registered {len(registered)} models")
        mine = registered[0]
        champion = self.rehearsal.champion()
        # Another drill's run may have made its own the champion since.
        if champion["last_updated_timestamp"] < mine["last_updated_timestamp"] - SAME_MOMENT:
            raise RehearsalError(
                f"version {mine['version']} of it isn't the champion, the older "
                f"{champion['version']} is"
            )
        return f"model version {mine['version']}, registered once"

    # --- machines ---------------------------------------------------------------------------------
    def container(self, task_arn: str) -> str:
        """The container of a task, which ECS may be about to start."""
        label = f"label=com.amazonaws.ecs.task-arn={task_arn}"
        for _ in range(20):
            found = docker("ps", "-q", "-f", label).stdout.split()
            if len(found) == 1:
                return found[0]
            time.sleep(0.5)
        raise RehearsalError(f"{len(found)} containers run for {task_arn}")

    def task_arn(self, run: FlowRun) -> str:
        """The task that runs a run."""
        seen = self.client.read_flow_run(run.id)
        return str(seen.infrastructure_pid).split("::")[-1]

    def kill(self, container: str) -> datetime:
        """Kill a container; gives the moment."""
        moment = datetime.now(UTC)
        docker("kill", "-s", "KILL", container)
        return moment

    @contextmanager
    def paused(self, container: str) -> Iterator[None]:
        """Stop a container's clock, so to speak: it is there, and doesn't answer."""
        docker("pause", container)
        try:
            yield
        finally:
            docker("unpause", container)

    @contextmanager
    def automations(self, **times: float) -> Iterator[None]:
        """The stack's automations, with other times for a while."""
        pool = self.rehearsal.outputs.work_pool.name
        list(register_automations(self.client, pool, **times))
        try:
            yield
        finally:
            with self.rehearsal.prefect() as client:  # by now its server may be another
                list(register_automations(client, pool))

    @contextmanager
    def without(self, service: str) -> Iterator[None]:
        """Nothing of a service runs for a while; then it starts anew."""
        ecs = self.rehearsal.root.client("ecs")
        cluster = pool_of(self.rehearsal.outputs).cluster_arn
        name = self.rehearsal.made["services"][service]
        container = self.service(service)
        # First, or a task that takes the killed one's place may be stopped as it starts.
        ecs.update_service(cluster=cluster, service=name, desiredCount=0)
        with suppress(DockerError):  # ECS may have stopped it already
            self.kill(container)
        try:
            yield
        finally:
            ecs.update_service(cluster=cluster, service=name, desiredCount=1)
            self.healthy(service)

    def kill_flow(self, run: FlowRun) -> datetime:
        """Kill a run's container in the middle of its search; gives the moment."""
        self.wait_for_task(run)
        return self.kill(self.container(self.task_arn(run)))

    def service(self, name: str) -> str:
        """The container of a service."""
        return self.container(self.rehearsal.task(name)["taskArn"])

    def healthy(self, name: str, minutes: float = 3) -> None:
        """Wait until a service's task is healthy."""
        deadline = time.monotonic() + minutes * 60
        while time.monotonic() < deadline:
            try:
                if self.rehearsal.task(name).get("healthStatus") == "HEALTHY":
                    return
            except RehearsalError:
                pass  # the next one isn't there yet
            time.sleep(1)
        raise RehearsalError(f"{name} isn't healthy after {minutes:.0f} minutes")


def seconds(earlier: datetime, later: State, most: float | None = None) -> str:
    """The time from a moment to a state.

    Raises:
        RehearsalError: it is more than `most` seconds.
    """
    took = (later.timestamp - earlier).total_seconds()
    if most is not None and took > most:
        raise RehearsalError(f"{later.name} after {took:.1f} s; promised: {most:.0f} s")
    return f"{later.name} after {took:.1f} s"


# --- drills ---------------------------------------------------------------------------------------
def flow_killed(scene: Scene) -> str:
    """Flow container killed (SIGKILL) in mid-training."""
    run = scene.start()
    killed = scene.kill_flow(run)
    crashed = seconds(killed, scene.wait_for_state(run, "Crashed"), 5)
    again = seconds(killed, scene.wait_for_state(run, "Running", times=2), 60)
    scene.harm_done.set()  # others would only have made it slower
    scene.completed(run)
    return f"{crashed}, {again}; {scene.check_work(run)}; {scene.check_model(run)}"


def flow_stopped(scene: Scene) -> str:
    """Flow task stopped (SIGTERM), as Spot and StopTask do."""
    scene.harm_done.set()
    run = scene.start()
    scene.wait_for_task(run)
    cluster, stopped = pool_of(scene.rehearsal.outputs).cluster_arn, datetime.now(UTC)
    scene.rehearsal.root.client("ecs").stop_task(cluster=cluster, task=scene.task_arn(run))
    waiting = seconds(stopped, scene.wait_for_state(run, "AwaitingRetry"))
    again = seconds(stopped, scene.wait_for_state(run, "Running", times=2))
    scene.completed(run)
    if scene.states(run, "Crashed"):
        raise RehearsalError(f"it crashed: {scene.path(run)}")
    return f"{waiting}, {again}; {scene.check_work(run)}; {scene.check_model(run)}"


def worker_killed(scene: Scene) -> str:
    """Ten runs queued against a limit of one, and the worker's container killed meanwhile."""
    queued, client = 10, scene.client
    store = scene.rehearsal.outputs.artifact_store
    workspaces = [f"runs/drill-{uuid4().hex}" for _ in range(queued)]
    with preparation(scene.rehearsal) as deployment:
        runs = [
            client.create_flow_run_from_deployment(
                deployment, parameters={"store": store, "workspace": f"{store}/{workspace}"}
            )
            for workspace in workspaces
        ]
        worker = scene.service("worker")
        scene.rehearsal.wait_for(client, runs[0], lambda _: _in_the_middle(scene, runs))
        scene.kill(worker)
        if _final(_states(scene, runs)) > queued - 2:
            raise RehearsalError("no run was queued any more when the worker was killed")
        for run in runs:
            scene.completed(run)
    scene.healthy("worker")
    starts = Counter(client.read_flow_run(run.id).run_count for run in runs)
    if starts != {1: queued}:
        raise RehearsalError(f"starts of the runs: {dict(starts)}")
    for run in runs:
        scene.check_taken_once(run)
    if (at_once := most_at_once([_ran(scene, run) for run in runs])) != 1:
        raise RehearsalError(f"{at_once} runs ran at once, against a limit of one")
    files = {len(scene.rehearsal.keys(f"flows/{workspace}/features/")) for workspace in workspaces}
    if files != {3}:  # the transformer and both months
        raise RehearsalError(f"the runs left {files} files of features each, not 3")
    return f"{queued} completed, each started once, never two at once, all data there"


def worker_killed_with_a_run(scene: Scene) -> str:
    """Worker killed between claiming a run and starting it."""
    wait, worker = 20, scene.service("worker")
    with scene.automations(wait_for_machine=wait, settle=10):
        with scene.paused(CONTAINER):  # its calls to AWS hang
            run = scene.start()
            claimed = scene.wait_for_state(run, "Pending")
            time.sleep(3)
            scene.kill(worker)
        crashed = scene.wait_for_state(run, "Crashed")
        if scene.client.read_flow_run(run.id).infrastructure_pid:
            raise RehearsalError("its task was started after all")
        done = scene.completed(run)
    if done.run_count != 1:
        raise RehearsalError(f"it was started {done.run_count} times")
    if "Not started after" not in (crashed.message or ""):
        raise RehearsalError(f"another reason than its wait: {crashed.message}")
    return (
        f"{seconds(claimed.timestamp, crashed)} (with {wait} s to find a machine and 10 s to"
        f" settle, not the stack's 600 s and {SETTLE:.0f} s): “{crashed.message}”; then Completed,"
        f" started once; {scene.check_model(run)}"
    )


def image_missing(scene: Scene) -> str:
    """Image that can't be pulled."""
    scene.harm_done.set()
    run = scene.start({"image": "127.0.0.1:1/no-such-image:1"})
    crashed = given_up(scene, run, starts=0)
    return f"{crashed}; log: “{shown(scene.log(run, 'CannotPullContainerError'))}”"


def definition_refused(scene: Scene) -> str:
    """Task definition refused: the worker may not pass a run's role."""
    iam = scene.rehearsal.root.client("iam")
    (role,) = [
        each["RoleName"]
        for each in iam.list_roles()["Roles"]
        if each["RoleName"].startswith("trainyard-rehearsal-worker-task-")
    ]
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    less = [each for each in document["Statement"] if "iam:PassRole" not in each["Action"]]

    def allow(statements: Sequence[dict[str, Any]]) -> None:
        text = json.dumps({**document, "Statement": statements})
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=text)

    allow(less)
    try:
        run = scene.start({"memory": 3072})  # another definition than the one that is there
        message = scene.wait_for_state(run, "Crashed").message or ""
    finally:
        allow(document["Statement"])
        scene.harm_done.set()
    if "AccessDenied" not in message:
        raise RehearsalError(f"the message doesn't say what was refused: {message}")
    scene.completed(run)
    model = scene.check_model(run)
    return f"Crashed: “{shown(message)}”; Completed by itself once the right was back; {model}"


def out_of_memory(scene: Scene) -> str:
    """Out of memory: a run whose task is too small for it."""
    # Fargate's least is 512 MiB, which is enough for the drill's data.
    with scene.automations(settle=10):
        scene.harm_done.set()
        run = scene.start({"memory": 384})
        crashed = given_up(scene, run, starts=3)
    if "memory" not in crashed:
        raise RehearsalError(f"the message doesn't speak of memory: {crashed}")
    return f"{crashed} (with 10 s between starts, not the stack's {SETTLE:.0f} s)"


def store_unavailable(scene: Scene) -> str:
    """S3, and all of AWS, unavailable for 30 s."""
    return outage(scene, CONTAINER)


def mlflow_unavailable(scene: Scene) -> str:
    """MLflow unavailable for 30 s."""
    return outage(scene, scene.service("mlflow"))


def prefect_unavailable(scene: Scene) -> str:
    """Prefect's API unavailable for 30 s."""
    return outage(scene, scene.service("prefect"))


def prefect_replaced(scene: Scene) -> str:
    """Prefect's server replaced while a run is at work, and another's machine still starts."""
    silence = 40  # so the run at work may seem dead by the time the next server is there
    with scene.automations(silence=silence), deployed(scene.rehearsal, concurrency_limit=1) as one:
        run = scene.start()
        scene.wait_for_task(run)
        starting = replace(scene, deployment=one).start()
        scene.rehearsal.wait_for(scene.client, starting, lambda run: bool(run.infrastructure_pid))
        with (
            scene.paused(scene.container(scene.task_arn(starting))),
            scene.without("prefect"),
        ):
            time.sleep(OUTAGE)
        with scene.rehearsal.prefect() as client:
            scene = replace(scene, client=client)
            for each in (run, starting):
                scene.completed(each)
                scene.check_taken_once(each)
            work, model = scene.check_work(run), scene.check_model(run)
            paths = f"{scene.path(run)}; the other one: {scene.path(starting)}"
    return f"{paths} (a run is silent after {silence} s, not {SILENCE:.0f} s); {work}; {model}"


def key_wrong(scene: Scene) -> str:
    """Wrong API key in the secret of the runs."""
    secrets = scene.rehearsal.root.client("secretsmanager")
    secret = ":".join(pool_of(scene.rehearsal.outputs).api_secret.split(":")[:7])
    right = secrets.get_secret_value(SecretId=secret)["SecretString"]
    secrets.put_secret_value(SecretId=secret, SecretString=wrong(right))
    try:
        run = scene.start()
        crashed = scene.wait_for_state(run, "Crashed")
    finally:
        secrets.put_secret_value(SecretId=secret, SecretString=right)
        scene.harm_done.set()
    line = scene.log(run, "401 Unauthorized")
    scene.completed(run)
    return f"Crashed: “{crashed.message}”; log: “{shown(line)}”; Completed by itself after"


def observer_deaf(scene: Scene) -> str:
    """Flow container killed, and nobody but its heartbeats tells."""
    events = scene.rehearsal.root.client("events")
    rules = events.list_rules(NamePrefix="trainyard-rehearsal-observer-rule")["Rules"]
    (rule,) = [each["Name"] for each in rules]
    run = scene.start()
    events.disable_rule(Name=rule)
    try:
        killed = scene.kill_flow(run)
        scene.harm_done.set()
        crashed = scene.wait_for_state(run, "Crashed", minutes=4)
    finally:
        events.enable_rule(Name=rule)
    found = seconds(killed, crashed)
    again = seconds(killed, scene.wait_for_state(run, "Running", times=2), 180)
    scene.completed(run)
    work, model = scene.check_work(run), scene.check_model(run)
    return f"{found}: “{crashed.message}”, {again}; {work}; {model}"


Drill = Callable[[Scene], str]
DRILLS: dict[str, Drill] = {
    drill.__name__.replace("_", "-"): drill
    for drill in (
        flow_killed,
        flow_stopped,
        worker_killed,
        worker_killed_with_a_run,
        image_missing,
        definition_refused,
        out_of_memory,
        store_unavailable,
        mlflow_unavailable,
        prefect_unavailable,
        prefect_replaced,
        key_wrong,
        observer_deaf,
    )
}


# At the same time, in this order; each begins when the one before no longer minds.
WAVES = (
    ("flow-killed", "flow-stopped", "image-missing"),
    ("key-wrong", "out-of-memory", "mlflow-unavailable"),
    ("observer-deaf", "definition-refused", "worker-killed"),
    ("worker-killed-with-a-run",),
    ("store-unavailable",),
    ("prefect-unavailable",),
    ("prefect-replaced",),
)
# CI takes one of these a day, so that each drill runs every three days: about five minutes each.
THIRDS = (
    (WAVES[0], WAVES[3], WAVES[4]),
    (WAVES[1], WAVES[6]),
    (WAVES[2], WAVES[5]),
)


# --- parts of drills ------------------------------------------------------------------------------
@contextmanager
def deployed(rehearsal: Rehearsal, flow: str = "", **changes: Any) -> Iterator[UUID]:
    """A deployment as the training's, or of another flow, with changes; without them, many of its
    runs at a time.
    """
    with rehearsal.prefect() as client:
        made = _deploy(client, flow, changes)
    try:
        yield made
    finally:
        with rehearsal.prefect() as client:  # by now its server may be another
            client.delete_deployment(made)


def _deploy(client: SyncPrefectClient, flow: str, changes: dict[str, Any]) -> UUID:
    training = client.read_deployment_by_name(DEPLOYMENT)
    kept = (
        *("work_pool_name", "job_variables", "pull_steps", "tags"),
        *("entrypoint", "parameters", "concurrency_options"),
    )
    return client.create_deployment(
        client.create_flow_from_name(flow) if flow else training.flow_id,
        name=f"drill-{uuid4().hex[:8]}",
        **{name: getattr(training, name) for name in kept} | changes,
    )


def preparation(rehearsal: Rehearsal) -> AbstractContextManager[UUID]:
    """The training's first part alone, one run at a time.

    Ten whole trainings, one after the other, would show the same in four times the time.
    """
    return deployed(
        rehearsal,
        flow="preprocess",
        entrypoint="flows/taxi/train.py:preprocess",
        parameters={"data": "synthetic", "months": ["2023-01", "2023-02"], "max_bad_share": 0.2},
        concurrency_limit=1,
    )


def outage(scene: Scene, container: str) -> str:
    """Something doesn't answer for a while in the middle of a run, which gets over it."""
    run = scene.start()
    scene.wait_for_task(run)
    with scene.paused(container):
        time.sleep(OUTAGE)
    scene.completed(run)
    if scene.states(run, "Crashed"):
        raise RehearsalError(f"it crashed: {scene.path(run)}")
    scene.check_taken_once(run)
    return f"Completed, started once; {scene.check_work(run)}; {scene.check_model(run)}"


def given_up(scene: Scene, run: FlowRun, starts: int) -> str:
    """A run that can't succeed is tried again, and then left alone as Crashed."""
    crashes = max(2, starts)
    last = scene.wait_for_state(run, "Crashed", times=crashes, minutes=6)
    time.sleep(15)  # longer than an automation takes to act
    seen = scene.client.read_flow_run(run.id)
    if scene.states(run)[-1].name != "Crashed" or seen.run_count != starts:
        raise RehearsalError(f"{seen.run_count} starts, not {starts}: {scene.path(run)}")
    return f"Crashed {crashes} times, {starts} starts, then given up: “{last.message}”"


def _states(scene: Scene, runs: Sequence[FlowRun]) -> list[State]:
    found = [scene.client.read_flow_run(run.id).state for run in runs]
    return [state for state in found if state]


def _final(states: Sequence[State]) -> int:
    return sum(state.is_final() for state in states)


def _in_the_middle(scene: Scene, runs: Sequence[FlowRun]) -> bool:
    """Two have ended, one is at work, and the worker has none in its hands, of any drill: one that
    it has claimed and not started is another drill.
    """
    states = _states(scene, runs)
    pending = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING"]}}})
    return (
        _final(states) >= 2
        and any(state.is_running() for state in states)
        and not scene.client.read_flow_runs(flow_run_filter=pending)
    )


def _ran(scene: Scene, run: FlowRun) -> tuple[datetime, datetime]:
    began, ended = scene.states(run, "Running")[0], scene.states(run)[-1]
    return began.timestamp, ended.timestamp


def most_at_once(spans: Sequence[tuple[datetime, datetime]]) -> int:
    """How many of these spans of time hold a moment together, at most."""
    return max(sum(1 for a, b in spans if a <= start < b) for start, _ in spans)


def wrong(secret: str) -> str:
    """A secret of the same form that opens nothing."""
    try:
        fields = json.loads(secret)
    except ValueError:
        return "wrong"
    return json.dumps(dict.fromkeys(fields, "wrong:wrong"))


def shown(text: str, most: int = 240) -> str:
    """A message as a cell of a table shows it."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


# --- the command ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Result:
    """One drill, and what came of it."""

    name: str
    title: str
    observed: str
    seconds: float
    ran: str
    """When, and of which commit: `2026-11-28, 1a2b3c4d5e6f`."""


def title(drill: Drill) -> str:
    """A drill's name for people."""
    return (drill.__doc__ or "").strip().rstrip(".")


def run_drill(rehearsal: Rehearsal, name: str, harm_done: Event) -> Result:
    """One drill on a stack that is up.

    Raises:
        RehearsalError: a promise doesn't hold.
    """
    drill, started = DRILLS[name], time.monotonic()
    try:
        with rehearsal.prefect() as client, deployed(rehearsal) as deployment:
            try:
                observed = drill(Scene(rehearsal, client, deployment, harm_done))
            except Exception:
                end_runs(rehearsal, deployment)
                raise
    finally:
        harm_done.set()
    ran = f"{datetime.now(UTC):%Y-%m-%d}, {current_commit().tag}"
    return Result(name, title(drill), observed, time.monotonic() - started, ran)


def run_wave(
    rehearsal: Rehearsal, names: Sequence[str], show: Callable[[str], None]
) -> tuple[list[Result], list[str]]:
    """Run drills at the same time, all to their end.

    Returns:
        What those observed that kept their promises, and which of them broke theirs, and how.
    """

    def run(name: str, harm_done: Event) -> Result | str:
        try:
            result = run_drill(rehearsal, name, harm_done)
        except Exception as error:  # whatever it is: the others go on to their ends
            show(f"✗ {name:<28} {error}")
            return f"{name}: {type(error).__name__}: {error}"
        show(f"✓ {name:<28} {result.seconds:6.0f} s  {result.observed}")
        return result

    pool, begun = ThreadPoolExecutor(len(names)), []
    try:
        for name in names:
            harm_done = Event()
            begun.append(pool.submit(run, name, harm_done))
            harm_done.wait()
        ended = [each.result() for each in begun]
    finally:
        pool.shutdown(wait=False)  # Ctrl-C ends the emulator, and so the drills
    kept = [each for each in ended if isinstance(each, Result)]
    return kept, [each for each in ended if isinstance(each, str)]


def end_runs(rehearsal: Rehearsal, deployment: UUID) -> None:
    """End what a failed drill has left running."""
    unfinished = {"not_any_": ["COMPLETED", "CRASHED", "FAILED", "CANCELLED"]}
    wanted = FlowRunFilter.model_validate(
        {"state": {"type": unfinished}, "deployment_id": {"any_": [deployment]}}
    )
    ecs, cluster = rehearsal.root.client("ecs"), pool_of(rehearsal.outputs).cluster_arn
    with rehearsal.prefect() as client:
        for run in client.read_flow_runs(flow_run_filter=wanted):
            client.set_flow_run_state(run.id, Cancelled(message="Its drill failed."), force=True)
            if run.infrastructure_pid:
                ecs.stop_task(cluster=cluster, task=run.infrastructure_pid.split("::")[-1])


def drill_all(waves: Sequence[Sequence[str]], rehearsal: Rehearsal, console: Console) -> None:
    """Run these drills, and write down what was observed of those that kept their promises."""
    bring_up(rehearsal, console)
    results, broken = list[Result](), list[str]()
    for wave in waves:

        def show(line: str) -> None:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

        with console.status(", ".join(wave)):
            kept, failed = run_wave(rehearsal, wave, show)
        results, broken = results + kept, broken + failed
    REPORT.write_text(written(REPORT.read_text(), results))
    if broken:
        raise RehearsalError("\n".join(["these drills failed:", *broken]))


def written(text: str, results: Sequence[Result]) -> str:
    """The report, with the rows of these drills as they went; the others' last runs stay."""
    rows = {name: row for row in text.splitlines() if (name := _drill_of(row)) in DRILLS}
    for each in results:
        observed = each.observed.replace("|", "\\|")
        rows[each.name] = (
            f"| {each.title} (`{each.name}`) | {observed} | {each.seconds:.0f} | {each.ran} |"
        )
    lines = ["| drill | observed | seconds | last run |", "| --- | --- | --- | --- |"]
    lines += [rows[name] for name in DRILLS if name in rows]
    return between_marks(text, "drills", "\n".join(lines) + "\n\n")


def _drill_of(row: str) -> str:
    found = re.match(r"\| [^|]+ \(`([a-z-]+)`\) \|", row)
    return found[1] if found else ""


def chosen(only: str) -> tuple[tuple[str, ...], ...]:
    """The waves of a choice: all, one drill's, or today's third.

    Raises:
        StackError: there is no such drill.
    """
    if only == "today":
        return THIRDS[datetime.now(UTC).toordinal() % len(THIRDS)]
    if only and only not in DRILLS:
        near = get_close_matches(only, DRILLS, n=1)
        raise StackError(
            f"there is no drill {only}{f' ({near[0]}?)' if near else ''}: ONLY=today, or one of "
            f"{', '.join(DRILLS)}"
        )
    return ((only,),) if only else WAVES


def drills_command(only: str, *, keep: bool) -> int:
    """Run the drills of a choice, say how they went, and give the exit code."""
    waves = chosen(only)
    say(f"drills: {', '.join(name for wave in waves for name in wave)}")
    # Prefect Cloud's side isn't ours to break: the drills run with a server of the stack's own.
    return perform("drills", "self-hosted", partial(drill_all, waves), keep=keep)
