"""Train a fraud classifier on CSVs of card transactions, and promote it if it is better."""

import asyncio
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.fraud.spec import PLACE
from flows.fraud.tasks import find_files, load_data, split_data, train_xgb
from flows.lifecycle.tasks import APPROVAL_TIMEOUT, release, run_workspace, start_experiment
from flows.platform.address import Address
from flows.platform.run_info import end_killed_attempts
from flows.platform.settings import load_settings

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")]


@flow(
    name="fraud-train",
    flow_run_name="{version} {stage}",
    timeout_seconds=APPROVAL_TIMEOUT + 2 * 3600,  # with the wait for a person's yes
    result_serializer="json",
)
async def fraud_train(
    data_path: Address,
    version: Label,
    stage: Label,
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05,
    approval: bool = False,
) -> None:
    """Train a fraud classifier, and promote it if it beats the champion.

    Args:
        data_path: a CSV with IEEE-CIS columns, a folder or `s3://` prefix that holds
            train_transaction*.csv, or `synthetic`.
        version: the owner's name for it, like 1.0.1: a tag of the registered version.
        stage: what it is meant for, like prod: another tag.
        max_bad_share: a file with a greater share of unusable rows stops the run.
        approval: wait for a person's yes before it is promoted.
    """
    store, workspace = load_settings().artifact_store, run_workspace()
    end_killed_attempts()
    experiment = start_experiment("fraud-train", "pr_auc")

    files = find_files(data_path, store)
    loaded = await asyncio.gather(*(load_data(file, max_bad_share, workspace) for file in files))
    dataset = split_data(data_path, loaded, store, workspace)

    model = train_xgb(experiment, dataset, version, stage)
    release(PLACE, experiment, model, approval=approval)
