"""A month whose trips take half as long again, and the training that it starts by itself."""

from io import BytesIO

import polars as pl
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from trainyard.rehearsal.emulator_session import wait_until
from trainyard.rehearsal.stack import DEPLOYMENT, Rehearsal

SCORE, MONITOR = "taxi-score/taxi-score", "taxi-monitor/taxi-monitor"
TRIGGER_SECONDS = 60


def put_slower_month(rehearsal: Rehearsal, month: str) -> str:
    """Change a synthetic month that a run has made; gives the address of its folder, for `data`."""
    s3, name = rehearsal.aws("s3"), f"green_tripdata_{month}.parquet"
    bucket, _, prefix = rehearsal.outputs.artifact_store.removeprefix("s3://").partition("/")
    made = s3.get_object(Bucket=bucket, Key=f"{prefix}/raw/synthetic/{name}")["Body"].read()
    start, end = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
    slower = pl.read_parquet(made).with_columns(lpep_dropoff_datetime=start + (end - start) * 1.5)
    content = BytesIO()
    slower.write_parquet(content)
    s3.put_object(Bucket=bucket, Key=f"{prefix}/slower/{name}", Body=content.getvalue())
    return f"s3://{bucket}/{prefix}/slower"


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
