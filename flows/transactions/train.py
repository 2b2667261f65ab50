"""Train a model of which transactions are refunded, and promote it if it is better."""

import mlflow
from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.lifecycle.holdout import SeenData, hold_out
from flows.lifecycle.tasks import APPROVAL_TIMEOUT, LoggedModel, release, start_experiment
from flows.platform.contract import ContractError
from flows.platform.events import older_data_used
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import Experiment, log_pipeline, tracked_run
from flows.transactions.ingest import Api, transactions_ingest
from flows.transactions.snapshots import last_snapshot, read_snapshot
from flows.transactions.spec import CATEGORICAL, NUMERIC, PLACE, SPEC, TARGET, labelled

# seconds, with the wait for a person's yes
FLOW_TIMEOUT = APPROVAL_TIMEOUT + 3600
PACKAGES = ["numpy", "pandas", "scikit-learn", "skops"]


@flow(name="transactions-train", timeout_seconds=FLOW_TIMEOUT, result_serializer="json")
def transactions_train(
    api: Api = "synthetic", snapshot: str = "new", approval: bool = False
) -> State[None] | None:
    """Train a model of which transactions are refunded, and promote it if it beats the champion.

    Args:
        api: where transactions come from: an address, or `synthetic`.
        snapshot: `new` ingests first, and takes the last snapshot if that fails; `last` takes it
            anyway; or a snapshot's URI.
        approval: wait for a person's yes before it is promoted.
    """
    failure = ""
    if snapshot == "new":
        ingested = transactions_ingest(api, return_state=True)
        if ingested.is_failed():
            failure, snapshot = str(ingested.message), "last"
        else:
            snapshot = ingested.result().uri
    if snapshot == "last":
        snapshot = use_last_snapshot(failure)
    experiment = start_experiment("transactions-train", "balanced_accuracy")
    model = train(experiment, snapshot)
    release(PLACE, experiment, model, approval=approval)
    if failure:
        return Completed(message=f"trained on {snapshot}, because the ingest failed: {failure}")
    return None


@task(task_run_name="use-last-snapshot", **RETRIED, **WAITS)
def use_last_snapshot(failure: str) -> str:
    """The newest snapshot; people are told if that is because of a failure."""
    found = last_snapshot(load_settings().artifact_store)
    if found is None:
        raise ContractError(
            f"there is no snapshot of transactions to train on. {failure or 'Ingest some first'}"
        )
    if failure:
        get_run_logger().warning("trains on the last snapshot, %s: %s", found, failure)
        older_data_used("transactions", found, failure)
    return found


@task(task_run_name="train", **PERSISTED, **WAITS)
def train(experiment: Experiment, snapshot: str) -> LoggedModel:
    """Fit to four fifths of the snapshot's transactions; the others are held out."""
    # here, so that a run starts without waiting for them
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    taken, transactions = read_snapshot(snapshot)
    # by its id: a transaction that is refunded later stays on its side
    seen = SeenData(name="transactions", held_out_by=["id"], **taken.model_dump())
    store = load_settings().artifact_store
    fitted, holdout = hold_out(labelled(transactions), SPEC.name, store, seen)
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), CATEGORICAL), (StandardScaler(), NUMERIC)
        ),
        LogisticRegression(class_weight="balanced"),
    )
    given = SPEC.model_input(fitted)
    with tracked_run(experiment, "logistic regression") as run_id:
        mlflow.log_param("snapshot", snapshot)
        model.fit(given, fitted[TARGET].to_numpy())
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(experiment, run_id, model, given.head(5), [], PACKAGES),
        description=f"Logistic regression on {len(fitted):,} transactions",
        seen=[seen],
        holdout=holdout,
        chosen={"snapshot": snapshot},
    )
