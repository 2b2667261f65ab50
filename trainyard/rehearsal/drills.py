"""What fails in production, made to fail on the rehearsal's stack.

Each drill breaks one thing for real, and ends with the run completed and the data right, or with
the state and the message that tell a user what to do.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType

from trainyard.aws import stack as operations
from trainyard.prefect.automations import SETTLE, SILENCE
from trainyard.rehearsal.drift import drift_told_twice, scoring_killed
from trainyard.rehearsal.emulator_session import CONTAINER, RehearsalError, wait_until
from trainyard.rehearsal.scene import OUTAGE, Drill, Scene, deployed, drill, seconds, shown
from trainyard.rehearsal.stack import RUN_MINUTES, pool_of

WINE = "wine-cultivar"


@drill
def flow_killed(scene: Scene) -> str:
    """Flow container killed (SIGKILL) in mid-training."""
    run = scene.start_and_search()
    killed = scene.kill(scene.rehearsal.container(scene.task_arn(run)))
    crashed = seconds(killed, scene.wait_for_state(run, "Crashed"), 5)
    again = seconds(killed, scene.wait_for_state(run, "Running", times=2), 60)
    scene.harm_done.set()  # others would only have made it slower
    return f"{crashed}, {again}; {scene.check_recovered(run)}"


@drill
def flow_stopped(scene: Scene) -> str:
    """Flow task stopped (SIGTERM), as Spot and StopTask do."""
    scene.harm_done.set()
    run = scene.start_and_search()
    cluster, stopped = pool_of(scene.rehearsal.outputs).cluster_arn, datetime.now(UTC)
    scene.rehearsal.aws("ecs").stop_task(cluster=cluster, task=scene.task_arn(run))
    waiting = seconds(stopped, scene.wait_for_state(run, "AwaitingRetry"))
    again = seconds(stopped, scene.wait_for_state(run, "Running", times=2))
    found = scene.check_recovered(run)
    scene.check_never_crashed(run)
    return f"{waiting}, {again}; {found}"


# The training's first part alone: ten whole ones would show the same in four times the time.
PREPARATION = {
    "data": "synthetic",
    "train_months": ["2023-01"],
    "valid_month": "2023-02",
    "durations": [1, 60],
    "max_bad_share": 0.2,
}


@drill
def worker_killed(scene: Scene) -> str:
    """Ten runs queued against a limit of one, and the worker's container killed meanwhile."""
    client, store = scene.client, scene.rehearsal.outputs.artifact_store
    workspaces = [f"runs/drill-{uuid4().hex}" for _ in range(10)]
    preparation: dict[str, Any] = {
        "flow": "preprocess",
        "entrypoint": "flows/taxi/train.py:preprocess",
        "parameters": {**PREPARATION, "store": store},
        "concurrency_limit": 1,
    }
    with deployed(scene.rehearsal, **preparation) as deployment:
        for workspace in workspaces:
            given = {"workspace": f"{store}/{workspace}"}
            client.create_flow_run_from_deployment(deployment, parameters=given)

        def runs(**wanted: Any) -> list[FlowRun]:
            return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))

        def states() -> list[StateType | None]:
            return [run.state_type for run in runs(deployment_id={"any_": [deployment]})]

        def in_the_middle() -> bool:
            """Two have ended, one is at work, and none is claimed and not started, of any drill."""
            seen = states()
            claimed = runs(state={"type": {"any_": [StateType.PENDING]}})
            ended = seen.count(StateType.COMPLETED)
            return ended >= 2 and StateType.RUNNING in seen and not claimed

        worker = scene.service("worker")
        wait_until(in_the_middle, RUN_MINUTES * 60, lambda: f"the ten runs are {states()}")
        scene.kill(worker)
        if states().count(StateType.COMPLETED) > len(workspaces) - 2:
            raise RehearsalError("no run was queued any more when the worker was killed")
        ended = [scene.completed(run) for run in runs(deployment_id={"any_": [deployment]})]
    scene.healthy("worker")
    if (starts := Counter(run.run_count for run in ended)) != {1: len(workspaces)}:
        raise RehearsalError(f"starts of the runs: {dict(starts)}")
    for run in ended:
        scene.check_taken_once(run)
    spans = [(run.start_time, run.end_time) for run in ended if run.start_time and run.end_time]
    if any(later[0] < earlier[1] for earlier, later in pairwise(sorted(spans))):
        raise RehearsalError(f"two runs ran at once, against a limit of one: {spans}")
    files = {len(scene.rehearsal.keys(f"flows/{workspace}/features/")) for workspace in workspaces}
    if files != {3}:  # the transformer and both months
        raise RehearsalError(f"the runs left {files} files of features each, not 3")
    return f"{len(ended)} completed, each started once, never two at once, all data there"


@drill
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


@drill
def image_missing(scene: Scene) -> str:
    """Image that can't be pulled."""
    scene.harm_done.set()
    run = scene.start({"image": "127.0.0.1:1/no-such-image:1"})
    crashed = given_up(scene, run, starts=0)
    return f"{crashed}; log: “{shown(scene.log(run, 'CannotPullContainerError'))}”"


@drill
def definition_refused(scene: Scene) -> str:
    """Task definition refused: the worker may not pass a run's role."""
    iam = scene.rehearsal.aws("iam")
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


@drill
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


@drill
def prefect_replaced(scene: Scene) -> str:
    """Prefect's server replaced while a run is at work, and another's machine still starts."""
    silence = 40  # so the run at work may seem dead by the time the next server is there
    with scene.automations(silence=silence), deployed(scene.rehearsal, concurrency_limit=1) as one:
        run = scene.start_and_search()
        starting = replace(scene, deployment=one).start()
        scene.rehearsal.wait_for(scene.client, starting, lambda run: bool(run.infrastructure_pid))
        with (
            scene.paused(scene.rehearsal.container(scene.task_arn(starting))),
            scene.without("prefect"),
        ):
            time.sleep(OUTAGE)
        with scene.rehearsal.prefect() as client:
            scene = replace(scene, client=client)
            for each in (run, starting):
                scene.completed(each)
                scene.check_taken_once(each)
            found = scene.check_recovered(run)
            paths = f"{scene.path(run)}; the other one: {scene.path(starting)}"
    return f"{paths} (a run is silent after {silence} s, not {SILENCE:.0f} s); {found}"


@drill
def key_wrong(scene: Scene) -> str:
    """Wrong API key in the secret of the runs."""
    secrets = scene.rehearsal.aws("secretsmanager")
    secret = ":".join(pool_of(scene.rehearsal.outputs).api_secret.split(":")[:7])
    right = secrets.get_secret_value(SecretId=secret)["SecretString"]
    wrong = json.dumps(dict.fromkeys(json.loads(right), "wrong:wrong"))
    secrets.put_secret_value(SecretId=secret, SecretString=wrong)
    try:
        run = scene.start()
        crashed = scene.wait_for_state(run, "Crashed")
    finally:
        secrets.put_secret_value(SecretId=secret, SecretString=right)
        scene.harm_done.set()
    line = scene.log(run, "401 Unauthorized")
    scene.completed(run)
    return f"Crashed: “{crashed.message}”; log: “{shown(line)}”; Completed by itself after"


@drill
def observer_deaf(scene: Scene) -> str:
    """Flow container killed, and nobody but its heartbeats tells."""
    events = scene.rehearsal.aws("events")
    rules = events.list_rules(NamePrefix="trainyard-rehearsal-observer-rule")["Rules"]
    (rule,) = [each["Name"] for each in rules]
    events.disable_rule(Name=rule)
    try:
        run = scene.start_and_search()
        killed = scene.kill(scene.rehearsal.container(scene.task_arn(run)))
        scene.harm_done.set()
        crashed = scene.wait_for_state(run, "Crashed", minutes=4)
    finally:
        events.enable_rule(Name=rule)
    found = seconds(killed, crashed)
    # 100 s of silence and 45 s between starts; the rest is this machine's, which may be busy.
    again = seconds(killed, scene.wait_for_state(run, "Running", times=2), 240)
    return f"{found}: “{crashed.message}”, {again}; {scene.check_recovered(run)}"


@drill
def promotion_killed(scene: Scene) -> str:
    """Promoting run killed between its two writes to MLflow's registry."""
    scene.harm_done.set()
    rehearsal = scene.rehearsal
    route = "/api/2.0/mlflow/registered-models/get"

    def aliases() -> dict[str, str]:
        model = rehearsal.mlflow(route, name=WINE).json()["registered_model"]
        return {each["alias"]: each["version"] for each in model["aliases"]}

    def run(**parameters: float) -> FlowRun:
        return scene.client.create_flow_run_from_deployment(wine, parameters=parameters)

    wine = scene.client.read_deployment_by_name("wine-train/wine-train").id
    scene.completed(run())
    scene.completed(run(regularization=1e5))  # knows next to nothing
    worse = aliases()["challenger"]
    force = ["promote", f"{WINE}/{worse}", "--force=drill"]
    operations.model(rehearsal.pulumi, force, rehearsal.connect)
    with scene.row_held(f"registered_model_aliases WHERE alias='champion' AND name='{WINE}'"):
        better = run()
        rehearsal.wait_for(scene.client, better, lambda _: aliases().get("previous") == worse)
        killed = scene.kill(scene.rehearsal.container(scene.task_arn(better)))
    if (held := aliases()["champion"]) != worse:
        raise RehearsalError(f"version {held} is champion, and the run that would make it died")
    again = seconds(killed, scene.wait_for_state(better, "Running", times=2), 120)
    scene.completed(better)
    found = aliases()
    if found["previous"] != worse or found["champion"] in (worse, None):
        raise RehearsalError(f"the run completed, and the registry has {found}")
    return (
        f"version {worse} stayed champion; {again}; then {found['champion']} is, {worse} previous"
    )


def unavailable(name: str, what: str) -> Drill:
    """A drill in which a service, or AWS, doesn't answer amid a run, which gets over it."""

    def act(scene: Scene) -> str:
        run = scene.start_and_search()
        with scene.paused(CONTAINER if name == "store" else scene.service(name)):
            time.sleep(OUTAGE)
        found = scene.check_recovered(run)
        scene.check_never_crashed(run)
        scene.check_taken_once(run)
        return f"Completed, started once; {found}"

    return Drill(f"{name}-unavailable", f"{what} unavailable for {OUTAGE:.0f} s", act)


store_unavailable = unavailable("store", "S3, and all of AWS,")
mlflow_unavailable = unavailable("mlflow", "MLflow")
prefect_unavailable = unavailable("prefect", "Prefect's API")


def given_up(scene: Scene, run: FlowRun, starts: int) -> str:
    """A run that can't succeed is tried again, and then left alone as Crashed."""
    crashes = max(2, starts)
    last = scene.wait_for_state(run, "Crashed", times=crashes, minutes=6)
    time.sleep(15)  # longer than an automation takes to act
    seen = scene.client.read_flow_run(run.id)
    if scene.states(run)[-1].name != "Crashed" or seen.run_count != starts:
        raise RehearsalError(f"{seen.run_count} starts, not {starts}: {scene.path(run)}")
    return f"Crashed {crashes} times, {starts} starts, then given up: “{last.message}”"


# At the same time, in this order; each begins when the one before no longer minds.
WAVES: tuple[tuple[Drill, ...], ...] = (
    (flow_killed, flow_stopped, image_missing),
    (key_wrong, out_of_memory, mlflow_unavailable),
    (observer_deaf, definition_refused, worker_killed),
    (worker_killed_with_a_run,),
    (store_unavailable,),
    (prefect_unavailable,),
    (prefect_replaced,),
    (promotion_killed,),
    (scoring_killed,),
    (drift_told_twice,),
)
# CI takes one of these a day, so that each drill runs every five days: about three minutes each.
PARTS = (
    (WAVES[0], WAVES[3]),
    (WAVES[1], WAVES[7]),
    (WAVES[2], WAVES[5]),
    (WAVES[4], WAVES[8]),
    (WAVES[6], WAVES[9]),
)
DRILLS = {each.name: each for wave in WAVES for each in wave}
