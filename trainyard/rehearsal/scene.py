"""What drills have in common: runs, what must hold of them, and machines to break."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.states import Cancelled

from trainyard.prefect.register import register_automations
from trainyard.rehearsal.emulator_session import RehearsalError, wait_until
from trainyard.rehearsal.stack import DEPLOYMENT, MODEL, PARAMETERS, Rehearsal, pool_of
from trainyard.tools.docker import DockerError, docker

TRIALS = 2
OUTAGE = 30.0  # seconds
# What flows/lifecycle/registry.py puts on a version that was compared.
VERDICT_TAG = "trainyard.verdict"
# Tasks that keep no result: they write the same page again.
REPORTS = {"report-quarantine", "report-release", "write-report"}


@dataclass(frozen=True)
class Scene:
    """The stack, a client of its Prefect from before the fault, and the drill's own deployment."""

    rehearsal: Rehearsal
    client: SyncPrefectClient
    deployment: UUID
    harm_done: Event = field(default_factory=Event)
    """From here on the next drill's start and harm don't break this one, nor this one's that."""

    # --- runs -------------------------------------------------------------------------------------
    def start(self, job_variables: dict[str, Any] | None = None) -> FlowRun:
        return self.client.create_flow_run_from_deployment(
            self.deployment,
            parameters={**PARAMETERS, "num_trials": TRIALS},
            job_variables=job_variables,
        )

    def start_and_search(self) -> FlowRun:
        """Start a training run, and wait until it is in the middle of its search."""

        def searches(run: FlowRun) -> bool:
            tasks = self.rehearsal.task_runs(self.client, run)
            found = [task for task in tasks if task.name == "search-xgboost"]
            return any(task.state and task.state.is_running() for task in found)

        return self.rehearsal.wait_for(self.client, self.start(), searches)

    def wait_for_state(self, run: FlowRun, name: str, times: int = 1, minutes: float = 3) -> State:
        """Wait until a run has been in a state so often; gives the state."""
        self.rehearsal.wait_for(
            self.client, run, lambda _: len(self.states(run, name)) >= times, minutes
        )
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
        return " → ".join(state.name or "" for state in self.states(run))

    def log(self, run: FlowRun, words: str) -> str:
        """The line of a run's log that has these words."""

        def lines() -> list[str]:
            return self.rehearsal.log_lines(self.client, run)

        return wait_until(
            lambda: next((line for line in reversed(lines()) if words in line), None),
            20,
            lambda: "\n".join([f"the log of {run.name} doesn't say {words}:", *lines()]),
        )

    # --- what must hold ---------------------------------------------------------------------------
    def check_taken_once(self, run: FlowRun) -> None:
        """A worker took a run once, to start a task for it."""
        if (found := len(self.states(run, "Pending"))) != 1:
            raise RehearsalError(f"{run.name} was taken {found} times: {self.path(run)}")

    def check_never_crashed(self, run: FlowRun) -> None:
        if self.states(run, "Crashed"):
            raise RehearsalError(f"it crashed: {self.path(run)}")

    def check_recovered(self, run: FlowRun) -> str:
        """A run completes, with nothing done twice and one model."""
        self.completed(run)
        return f"{self.check_work(run)}; {self.check_model(run)}"

    def check_work(self, run: FlowRun) -> str:
        """What a run and its subflows have finished once they didn't do again, in any attempt."""
        parent = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
        family = [run, *self.client.read_flow_runs(flow_run_filter=parent)]
        tasks = [task for each in family for task in self.rehearsal.task_runs(self.client, each)]
        if twice := done_twice(tasks, run.id) - REPORTS:
            raise RehearsalError(f"done twice, though finished: {sorted(twice)}")
        cached = sum(task.state_name == "Cached" for task in tasks)
        return f"{cached} tasks taken from the result store, none done twice"

    def check_model(self, run: FlowRun) -> str:
        """A run left one model in the registry, judged by the gate, from one set of trials."""

        def search(what: str, key: str, body: dict[str, Any] | None = None, **query: str) -> Any:
            route = f"/api/2.0/mlflow/{what}/search"
            return self.rehearsal.mlflow(route, body, **query).raise_for_status().json()[key]

        of_run = {"filter": f"tags.`prefect.flow_run_id` = '{run.id}'", "max_results": 1}
        experiment = search("experiments", "experiments", of_run)[0]["experiment_id"]
        active = {"experiment_ids": [experiment], "run_view_type": "ACTIVE_ONLY"}
        runs = [each["info"] for each in search("runs", "runs", active)]
        expected = TRIALS + 2  # the baseline, and the trials' parent
        if len(runs) != expected:
            names = sorted(each["run_name"] for each in runs)
            raise RehearsalError(f"MLflow has {len(runs)} runs of it, not {expected}: {names}")
        ids = {each["run_id"] for each in runs}
        known = search("model-versions", "model_versions", filter=f"name='{MODEL}'")
        registered = [version for version in known if version["run_id"] in ids]
        if len(registered) != 1:
            raise RehearsalError(f"it registered {len(registered)} models")
        mine = registered[0]
        if not any(tag["key"] == VERDICT_TAG for tag in mine.get("tags", ())):
            raise RehearsalError(f"the gate has said nothing of its version {mine['version']}")
        self.rehearsal.champion()  # there is one at any time
        return f"model version {mine['version']}, registered and judged"

    # --- machines ---------------------------------------------------------------------------------
    def task_arn(self, run: FlowRun) -> str:
        seen = self.client.read_flow_run(run.id)
        return str(seen.infrastructure_pid).split("::")[-1]

    def service(self, name: str) -> str:
        return self.rehearsal.container(self.rehearsal.task(name)["taskArn"])

    def kill(self, container: str) -> datetime:
        """Kill a container; gives the moment."""
        moment = datetime.now(UTC)
        docker("kill", "-s", "KILL", container)
        return moment

    def healthy(self, service: str) -> None:
        wait_until(
            lambda: self.rehearsal.task(service).get("healthStatus") == "HEALTHY",
            180,
            lambda: f"{service} isn't healthy after 3 minutes",
            RehearsalError,  # the next one isn't there yet
        )

    @contextmanager
    def paused(self, container: str) -> Iterator[None]:
        """Stop a container's clock, so to speak: it is there, and doesn't answer."""
        docker("pause", container)
        try:
            yield
        finally:
            docker("unpause", container)

    @contextmanager
    def row_held(self, row: str) -> Iterator[None]:
        """Keep MLflow from writing a row of its database; who waits for it then has no answer."""
        label = "label=db_id=trainyard-rehearsal-database"
        (database,) = docker("ps", "-q", "-f", label).stdout.split()
        psql = ("exec", database, "psql", "-U", "trainyard", "-d", "mlflow", "-c")

        def hold() -> None:
            with suppress(DockerError):  # it is ended below
                statement = f"SELECT 1 FROM {row} FOR UPDATE"  # noqa: S608  a drill's own
                docker(*psql, f"BEGIN; {statement}; SELECT pg_sleep(600)")

        holder = Thread(target=hold, daemon=True)
        holder.start()
        try:
            yield
        finally:
            docker(
                *psql,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                " pg_backend_pid() AND (query LIKE '%pg_sleep(600)%' OR wait_event_type = 'Lock')",
            )
            holder.join(30)

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
        ecs = self.rehearsal.aws("ecs")
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


@dataclass(frozen=True)
class Drill:
    """One fault: `act` causes it, checks what must hold after, and gives what was observed."""

    name: str
    title: str
    act: Callable[[Scene], str]


def drill(act: Callable[[Scene], str]) -> Drill:
    """Make a drill of a function, whose docstring says what is broken."""
    return Drill(act.__name__.replace("_", "-"), (act.__doc__ or "").strip(" ."), act)


@contextmanager
def deployed(rehearsal: Rehearsal, flow: str = "", **changes: Any) -> Iterator[UUID]:
    """A deployment as the training's, or of another flow, with changes; no run outlives it."""
    copied = ("work_pool_name", "job_variables", "pull_steps", "tags", "entrypoint", "parameters")
    with rehearsal.prefect() as client:
        training = client.read_deployment_by_name(DEPLOYMENT)
        made = client.create_deployment(
            client.create_flow_from_name(flow) if flow else training.flow_id,
            name=f"drill-{uuid4().hex[:8]}",
            **{name: getattr(training, name) for name in (*copied, "concurrency_options")}
            | changes,
        )
    unfinished = {"not_any_": ["COMPLETED", "CRASHED", "FAILED", "CANCELLED"]}
    left = FlowRunFilter.model_validate(
        {"state": {"type": unfinished}, "deployment_id": {"any_": [made]}}
    )
    ecs, cluster = rehearsal.aws("ecs"), pool_of(rehearsal.outputs).cluster_arn
    try:
        yield made
    finally:
        with rehearsal.prefect() as client:  # by now its server may be another
            for run in client.read_flow_runs(flow_run_filter=left):
                end: State = Cancelled(message="Its drill failed.")
                client.set_flow_run_state(run.id, end, force=True)
                if run.infrastructure_pid:
                    ecs.stop_task(cluster=cluster, task=run.infrastructure_pid.split("::")[-1])
            client.delete_deployment(made)


def done_twice(tasks: list[TaskRun], run: UUID) -> set[str]:
    """Names of tasks, of a run and its subflows, that were done again though they had finished.

    Prefect tells that a task has completed before it keeps its result, so the very last thing that
    an attempt did may be done again.
    """
    own = [task for task in tasks if task.flow_run_id == run]
    newest = max((task.flow_run_run_count for task in own), default=0)

    def was_last(task: TaskRun) -> bool:
        attempt = [each for each in own if each.flow_run_run_count == task.flow_run_run_count]
        return (
            task in own
            and task.flow_run_run_count < newest
            and not any(
                each.start_time and task.end_time and each.start_time >= task.end_time
                for each in attempt
            )
        )

    done = Counter(
        task.name
        for task in tasks
        if task.state_name == "Completed"
        and not (task.state and task.state.state_details.child_flow_run_id)
        and not was_last(task)
    )
    return {name for name, count in done.items() if count > 1}


def seconds(earlier: datetime, later: State, most: float = float("inf")) -> str:
    """The time from a moment to a state; RehearsalError where it is more than `most` seconds."""
    took = (later.timestamp - earlier).total_seconds()
    if took > most:
        raise RehearsalError(f"{later.name} after {took:.1f} s; promised: {most:.0f} s")
    return f"{later.name} after {took:.1f} s"


def shown(text: str, most: int = 240) -> str:
    """A message as a cell of a table shows it."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
