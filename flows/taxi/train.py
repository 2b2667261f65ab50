"""Train trip-duration models on some months, validate on the next, promote the best if it wins."""

import contextlib
from typing import Annotated

from prefect import flow, runtime
from pydantic import AfterValidator, Field, ValidationInfo

from flows.lifecycle.tasks import release, run_workspace, start_experiment
from flows.platform.address import Address
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.taxi.candidates import Limits, require_within_limits
from flows.taxi.months import LaterMonth, Month, OneMonth, chosen_months, months_until, quarters
from flows.taxi.preprocess import preprocess
from flows.taxi.tasks import (
    find_best,
    keep_reference_month,
    log_model,
    search_xgboost,
    to_release,
    train_baseline,
    write_report,
)

SPEC = "flows.taxi.spec:SPEC"  # loaded where it is used
# seconds; between its tasks, and each task has its own
FLOW_TIMEOUT = 6 * 3600


def run_name() -> str:
    """A flow run is called after its months."""
    parameters = runtime.flow_run.parameters
    train, valid = parameters.get("train_month"), parameters.get("valid_month")
    one_month, num_months = parameters.get("one_month", False), parameters.get("num_months", 1)
    # the flow itself reports bad months: a run that gets no name stays Pending for good
    with contextlib.suppress(ValueError):
        train, valid = chosen_months(train, valid, runtime.flow_run.scheduled_start_time, one_month)
        if one_month:
            train, valid = (f"{train}, days {first} to {last}" for first, last in quarters(train))
        elif num_months > 1:
            train = f"{months_until(train, num_months)[0]} to {train}"
    return f"train {train}, validate {valid}"


def _above_y_min(y_max: float, given: ValidationInfo) -> float:
    if given.data.get("y_min", 0) >= y_max:
        raise ValueError(f"y_max {y_max:g} is not above y_min {given.data['y_min']:g}")
    return y_max


@flow(
    name="taxi-train",
    flow_run_name=run_name,
    timeout_seconds=FLOW_TIMEOUT,
    result_serializer="json",
)
def taxi_train(
    data: Address = "synthetic",
    train_month: Month | None = None,
    valid_month: LaterMonth | None = None,
    num_months: Annotated[int, Field(ge=1, le=240)] = 1,
    one_month: OneMonth = False,
    num_trials: Annotated[int, Field(ge=1, le=1000)] = 20,
    max_rmse_valid: Annotated[float, Field(gt=0, lt=1e6)] = 6.5,
    max_inference_time: Annotated[float, Field(gt=0, lt=1e6)] = 20e-6,
    y_min: Annotated[float, Field(ge=0, lt=1e6)] = 1,
    y_max: Annotated[float, Field(gt=0, lt=1e6), AfterValidator(_above_y_min)] = 60,
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.2,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42,
    approval: bool = False,
) -> None:
    """Train trip-duration models on some months, validate on the next, promote the best if it wins.

    Args:
        data: where raw months come from: `synthetic`, `tlc` (New York's public site), a folder,
            or an `s3://` or `https://` prefix.
        train_month: like 2023-01; without months, the two newest that TLC has published by the
            time the run was scheduled for.
        valid_month: like 2023-02; without it, the month after `train_month`.
        num_months: how many to train on, of which `train_month` is the last: any number fits, as
            they are read one at a time.
        one_month: train on the first three quarters of a month's days and validate on the rest:
            `train_month`, or the newest. For a month that isn't like those before it.
        num_trials: how many XGBoost models the search may try.
        max_rmse_valid: a candidate's RMSE on the validation month must be below it, in minutes.
        max_inference_time: a candidate's prediction must take less, in seconds per row.
        y_min: shorter trips are left out, in minutes.
        y_max: longer ones, too.
        max_bad_share: a month with a greater share of unusable rows stops the run.
        seed: of the search.
        approval: wait for a person's yes before a model becomes the champion.
    """
    store, workspace = load_settings().artifact_store, run_workspace()
    end_killed_attempts()
    last, valid = chosen_months(train_month, valid_month, current_run().scheduled, one_month)
    limits = Limits(rmse_valid=max_rmse_valid, inference_time=max_inference_time)

    experiment = start_experiment("taxi-train", "rmse_valid")
    months = months_until(last, num_months)
    dataset = preprocess(data, months, valid, (y_min, y_max), max_bad_share, store, workspace)
    baseline = train_baseline(experiment, dataset, workspace)
    trials = search_xgboost(experiment, dataset, workspace, num_trials, seed)

    best = find_best(experiment, limits)
    logged = {
        model.run_id: log_model(experiment, dataset, model)
        for model in [baseline, *trials]
        if model.run_id in (baseline.run_id, best.run_id)
    }
    require_within_limits(best, limits)
    reference = keep_reference_month(dataset, store)
    model = to_release(experiment, dataset, logged[best.run_id], reference)
    verdict = release(SPEC, experiment, model, {"rmse": max_rmse_valid}, approval)
    write_report(experiment, dataset, logged[baseline.run_id], logged[best.run_id], verdict)


if __name__ == "__main__":
    taxi_train()
