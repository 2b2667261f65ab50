"""A month that has changed, and the training that it starts by itself."""

import json
import time
from io import BytesIO
from uuid import uuid4

import polars as pl
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from trainyard.prefect.automations import DRIFT_DETECTED
from trainyard.rehearsal.emulator_session import CONTAINER, RehearsalError, wait_until
from trainyard.rehearsal.scene import OUTAGE, Scene, drill, seconds
from trainyard.rehearsal.stack import DEPLOYMENT, MODEL, Rehearsal

SCORE, MONITOR = "taxi-score/taxi-score", "taxi-monitor/taxi-monitor"
TRIGGER_SECONDS = 60


START, END = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
# Trips take half as long again.
SLOWER = (START + (END - START) * 1.5).alias("lpep_dropoff_datetime")


def put_changed_month(rehearsal: Rehearsal, month: str, change: pl.Expr) -> str:
    """Change a synthetic month that a run has made; gives the address of its folder, for `data`."""
    store, name = rehearsal.outputs.artifact_store, f"green_tripdata_{month}.parquet"
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    made = pl.read_parquet(_read(rehearsal, f"{prefix}/raw/synthetic/{name}"))
    content = BytesIO()
    made.with_columns(change).write_parquet(content)
    key = f"{prefix}/changed/{name}"
    rehearsal.aws("s3").put_object(Bucket=bucket, Key=key, Body=content.getvalue())
    return f"{store}/changed"


def trainings(client: SyncPrefectClient) -> list[FlowRun]:
    """All runs of the training's deployment, the newest first."""
    deployment = client.read_deployment_by_name(DEPLOYMENT).id
    wanted = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment]}})
    return client.read_flow_runs(flow_run_filter=wanted, limit=200)


def triggered(client: SyncPrefectClient, before: list[FlowRun]) -> FlowRun:
    """Wait for a training that nobody has started; `before` is what there was."""
    known = {run.id for run in before}
    return wait_until(
        lambda: next((run for run in trainings(client) if run.id not in known), None),
        TRIGGER_SECONDS,
        lambda: f"no training was started within {TRIGGER_SECONDS} s of a drift",
    )


@drill
def scoring_killed(scene: Scene) -> str:
    """Scoring run killed in mid-month, while S3 doesn't answer."""
    month = _month(scene)
    folder = f"flows/scores/{MODEL}/month={month}/"
    run = _amid(scene, SCORE, "score-", month=month)
    with scene.paused(CONTAINER):  # nothing of the month can be written
        killed = scene.kill(scene.rehearsal.container(scene.task_arn(run)))
    again = seconds(killed, scene.wait_for_state(run, "Running", times=2), 120)
    scene.completed(run)
    files = {key.removeprefix(folder) for key in scene.rehearsal.keys(folder)}
    if files != {"record.json", "scores.parquet", "quarantine.parquet"}:
        raise RehearsalError(f"the month has the files {sorted(files)}")
    record = json.loads(_read(scene.rehearsal, f"{folder}record.json"))
    scored, bad = (
        pl.read_parquet(_read(scene.rehearsal, f"{folder}{name}.parquet")).height
        for name in ("scores", "quarantine")
    )
    if (record["flow_run"], record["rows"]) != (str(run.id), scored + bad):
        raise RehearsalError(f"{scored:,} rows scored and {bad:,} not, and its record is {record}")
    return f"{again}; then {scored:,} rows scored and {bad:,} quarantined, of {record['rows']:,}"


@drill
def drift_told_twice(scene: Scene) -> str:
    """S3 away while a month's page is written, and the event of its drift delivered twice."""
    client, month = scene.client, _month(scene)
    scene.completed(_started(scene, SCORE, month=month))
    # twice as much for each champion: it may have learned an earlier drill's fares
    dearer = pl.col("fare_amount") * 2.0 ** int(scene.rehearsal.champion()["version"])
    data = put_changed_month(scene.rehearsal, month, dearer)
    scene.completed(_started(scene, SCORE, month=month, data=data))
    before = trainings(client)
    run = _amid(scene, MONITOR, "monitor-", month=month, data=data)
    with scene.paused(CONTAINER):
        time.sleep(OUTAGE)
    if scene.completed(run).total_run_time.total_seconds() < OUTAGE:
        raise RehearsalError("the page was written before S3 was away")
    scene.check_never_crashed(run)
    if not scene.rehearsal.keys(f"flows/monitoring/{MODEL}/{month}.html"):
        raise RehearsalError("the month has no page")
    mine = {"event": {"name": [DRIFT_DETECTED]}, "related": {"id": [f"prefect.flow-run.{run.id}"]}}
    found = wait_until(
        lambda: client.request("POST", "/events/filter", json={"filter": mine}).json()["events"],
        10,
        lambda: "Prefect has no event of the drift",
    )
    training = triggered(client, before)
    client.request("POST", "/events", json=found)
    scene.completed(training)
    if (more := len(trainings(client)) - len(before)) != 1:
        raise RehearsalError(f"{len(found)} event, delivered twice, has started {more} trainings")
    return (
        f"page there, never crashed; one training, version {scene.rehearsal.champion()['version']}"
    )


def _month(scene: Scene) -> str:
    """A month that nobody has scored yet; there is a champion after it."""
    try:
        scene.rehearsal.champion()
    except RehearsalError:
        scene.completed(scene.start())
    return f"20{30 + uuid4().int % 70}-01"


def _started(scene: Scene, deployment: str, **parameters: str) -> FlowRun:
    found = scene.client.read_deployment_by_name(deployment).id
    return scene.client.create_flow_run_from_deployment(found, parameters=parameters)


def _amid(scene: Scene, deployment: str, task: str, **parameters: str) -> FlowRun:
    """Start a run, and wait until a task of it is at work."""

    def works(run: FlowRun) -> bool:
        tasks = scene.rehearsal.task_runs(scene.client, run)
        return any(
            each.name.startswith(task) and each.state and each.state.is_running() for each in tasks
        )

    started = _started(scene, deployment, **parameters)
    return scene.rehearsal.wait_for(scene.client, started, works)


def _read(rehearsal: Rehearsal, key: str) -> bytes:
    bucket = rehearsal.outputs.artifact_store.removeprefix("s3://").split("/")[0]
    return bytes(rehearsal.aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
