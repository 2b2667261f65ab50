"""Prefect owns the stages: a task each, whose result is the cached one if nothing changed."""

from prefect import flow

from flows.iris import files
from flows.iris.params import PROJECT, Iterations, Regularization, Seed, Share, load_params
from flows.iris.spec import PLACE
from flows.iris.stages import RAW
from flows.iris.tasks import evaluate, log_model, prepare, train
from flows.lifecycle.tasks import APPROVAL_TIMEOUT, release, start_experiment
from flows.platform.run_info import end_killed_attempts
from flows.platform.settings import load_settings

# seconds, with the wait for a person's yes
FLOW_TIMEOUT = APPROVAL_TIMEOUT + 1800


@flow(name="iris-train", timeout_seconds=FLOW_TIMEOUT, result_serializer="json")
def iris_train(
    test_size: Share | None = None,
    seed: Seed | None = None,
    regularization: Regularization | None = None,
    max_iter: Iterations | None = None,
    approval: bool = False,
) -> None:
    """Train a classifier of irises by DVC's stages, and promote it if it beats the champion.

    What isn't given is taken from params.yaml.

    Args:
        test_size: the share of rows to test on.
        seed: of the split.
        regularization: of the logistic regression, the inverse of scikit-learn's C.
        max_iter: of its solver, at most.
        approval: wait for a person's yes before it is promoted.
    """
    end_killed_attempts()
    params = load_params(PROJECT / "params.yaml").updated(
        test_size=test_size, seed=seed, regularization=regularization, max_iter=max_iter
    )
    store = load_settings().artifact_store
    experiment = start_experiment("iris-train", "accuracy")
    raw = files.keep(store, PROJECT, RAW)
    rows, test_rows, holdout = prepare(store, raw, params.split)
    model = train(store, rows, params.train)
    metrics = evaluate(store, test_rows, model)
    versions = [raw, rows, test_rows, holdout, model, metrics]
    release(PLACE, experiment, log_model(experiment, store, params, versions), approval=approval)
