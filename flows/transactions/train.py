"""Train a model of which transactions are refunded, and promote it if it is better."""

import mlflow
from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.lifecycle.holdout import SeenData, held_out, keep_holdout
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
            failure = str(ingested.message)
            snapshot = use_last_snapshot(failure)
        else:
            snapshot = ingested.result().uri
    elif snapshot == "last":
        snapshot = use_last_snapshot()
    experiment = start_experiment("transactions-train", "balanced_accuracy")
    model = train(experiment, snapshot)
    release(PLACE, experiment, model, approval=approval)
    if failure:
        return Completed(message=f"trained on {snapshot}, because the ingest failed: {failure}")
    return None


@task(task_run_name="use-last-snapshot", **RETRIED, **WAITS)
def use_last_snapshot(failure: str = "") -> str:
    """The newest snapshot; people are told if that is because of a failure.

    Raises:
        ContractError: there is none.
    """
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
    rows = labelled(transactions)
    # by its id: a transaction that is refunded later stays on its side
    unseen = held_out(rows.select("id"))
    fitted = rows.filter(~unseen)
    seen = SeenData(name="transactions", held_out_by=["id"], **taken.model_dump())
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), CATEGORICAL), (StandardScaler(), NUMERIC)
        ),
        LogisticRegression(class_weight="balanced"),
    )
    with tracked_run(experiment, "logistic regression") as run_id:
        mlflow.log_param("snapshot", snapshot)
        model.fit(SPEC.model_input(fitted), fitted[TARGET].to_numpy())
    example, packages = (
        SPEC.model_input(fitted.head(5)),
        ["numpy", "pandas", "scikit-learn", "skops"],
    )
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(experiment, run_id, model, example, [], packages),
        description=f"Logistic regression on {len(fitted):,} transactions",
        seen=[seen],
        holdout=keep_holdout(rows.filter(unseen), SPEC.name, load_settings().artifact_store, seen),
        chosen={"snapshot": snapshot},
    )
