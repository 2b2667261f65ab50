"""Train a classifier of wines on scikit-learn's own data, and promote it if it is better."""

import hashlib
from typing import Annotated

import mlflow
import polars as pl
from prefect import flow, task
from pydantic import Field

from flows.lifecycle.holdout import SeenData, hold_out
from flows.lifecycle.tasks import APPROVAL_TIMEOUT, LoggedModel, release, start_experiment
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, WAITS
from flows.platform.tracking import Experiment, log_pipeline, tracked_run
from flows.wine.spec import PLACE, SPEC, TARGET

# seconds, with the wait for a person's yes
FLOW_TIMEOUT = APPROVAL_TIMEOUT + 1800


@flow(name="wine-train", timeout_seconds=FLOW_TIMEOUT, result_serializer="json")
def wine_train(
    regularization: Annotated[float, Field(gt=0, le=1e6)] = 1.0, approval: bool = False
) -> None:
    """Train a classifier of wines, and promote it if it beats the champion.

    Args:
        regularization: of the logistic regression, the inverse of scikit-learn's C.
        approval: wait for a person's yes before it is promoted.
    """
    experiment = start_experiment("wine-train", "accuracy")
    release(PLACE, experiment, train(experiment, regularization), approval=approval)


@task(task_run_name="train", **PERSISTED, **WAITS)
def train(experiment: Experiment, regularization: float) -> LoggedModel:
    """Fit to four fifths of the wines; the others are held out."""
    # here, so that a run starts without waiting for them
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    wines = read_wines()
    digest = hashlib.sha256(wines.write_csv().encode()).hexdigest()
    uri = "scikit-learn: sklearn.datasets.load_wine"
    seen = SeenData(name="wine", sha256=digest, uri=uri, rows=len(wines), held_out_by=wines.columns)
    rows, holdout = hold_out(wines, SPEC.name, load_settings().artifact_store, seen)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / regularization))
    with tracked_run(experiment, "logistic regression") as run_id:
        mlflow.log_param("regularization", regularization)
        model.fit(SPEC.model_input(rows), rows[TARGET].to_numpy())
    example = SPEC.model_input(rows.head(5))
    return LoggedModel(
        run_id=run_id,
        uri=log_pipeline(
            experiment, run_id, model, example, [], ["numpy", "scikit-learn", "skops"]
        ),
        description=f"Logistic regression on {len(rows)} wines, regularization {regularization:g}",
        seen=[seen],
        holdout=holdout,
    )


def read_wines() -> pl.DataFrame:
    """Return 178 wines: 13 measurements each, and the cultivar, 0 to 2."""
    from sklearn.datasets import load_wine

    data = load_wine()
    return pl.DataFrame(data.data, schema=data.feature_names).with_columns(
        pl.Series(TARGET, data.target)
    )
