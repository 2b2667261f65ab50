"""From an experiment's runs to a registered model: who is a candidate, and who gets the alias."""

from contextlib import suppress

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import BaseModel
from tenacity import Retrying, stop_after_attempt

from flows.lifecycle.champion import CHAMPION, CONTENT_TAG, hash_of_model
from flows.platform.tracking import VALIDATION


class NoCandidateError(RuntimeError):
    """No run satisfies the limits: the message shows the best run and both limits."""


class Limits(BaseModel):
    """What a run must stay below to be a candidate."""

    rmse_valid: float
    """In the target's unit."""
    inference_time: float
    """Seconds per row; the runs' metric of this name is in microseconds."""


class Candidate(BaseModel):
    """A run that may be registered, or the best one if `within_limits` is False."""

    run_id: str
    name: str
    rmse_valid: float
    inference_time: float
    within_limits: bool


def best_candidate(client: MlflowClient, experiment_id: str, limits: Limits) -> Candidate:
    """The run with the lowest `rmse_valid` within the limits, else the lowest of all.

    Raises:
        NoCandidateError: no run has logged both metrics.
    """
    within = (
        f"metrics.rmse_valid < {limits.rmse_valid} "
        f"and metrics.inference_time < {limits.inference_time * 1e6:.9f}"
    )
    for condition in (within, "metrics.rmse_valid >= 0 and metrics.inference_time >= 0"):
        runs = client.search_runs(
            [experiment_id], condition, max_results=1, order_by=["metrics.rmse_valid ASC"]
        )
        if runs:
            return _candidate(runs[0], within_limits=condition == within)
    raise NoCandidateError("no run of this experiment has logged rmse_valid and inference_time")


def require_within_limits(best: Candidate, limits: Limits) -> None:
    """Stop here unless the best run is a candidate.

    Raises:
        NoCandidateError: it isn't; names the run, its metrics and both limits.
    """
    if not best.within_limits:
        raise NoCandidateError(
            f"no run satisfies rmse_valid < {limits.rmse_valid:g} and "
            f"inference_time < {limits.inference_time:g} s per row: the best, {best.name!r}, has "
            f"{best.rmse_valid:.3f} and {best.inference_time:.2e}; the registry is as it was. "
            "Train on other months or with more trials, or raise the limits"
        )


def register_champion(
    client: MlflowClient,
    model_name: str,
    model_uri: str,
    run_id: str,
    description: str,
    about: str = "",
) -> str:
    """Register a logged model as the next version; it gets the alias unless the champion beats it.

    Doing it again for the same run gives the version that is there already. Callers that may do it
    at the same time take turns (`flows.platform.locks`): MLflow compares nothing when it moves an
    alias.

    Args:
        description: of the version.
        about: of the model, if it has no description yet.

    Returns:
        The version's number; `champion_version` says who has the alias.
    """
    # `register_model` asks MLflow's globals, which a resumed run may not have set yet
    mlflow.set_tracking_uri(client.tracking_uri)
    if not _versions(client, model_name, run_id):
        tags = {CONTENT_TAG: hash_of_model(model_uri, client.tracking_uri)}
        mlflow.register_model(model_uri, model_name, tags=tags)
        if about and not client.get_registered_model(model_name).description:
            client.update_registered_model(model_name, about)
    # another attempt at the same run may have done so meanwhile: both see the older one
    version, *others = _versions(client, model_name, run_id)
    for other in others:
        with suppress(MlflowException):  # the other attempt was quicker
            client.delete_model_version(model_name, other)
    client.update_model_version(model_name, version, description=description)
    champion = champion_version(client, model_name)
    if champion is None or not _beats(client, model_name, champion, run_id):
        # two at once, the first time, and one of them breaks a rule of MLflow's database
        again = Retrying(stop=stop_after_attempt(3), reraise=True)
        again(client.set_registered_model_alias, model_name, CHAMPION, version)
    return version


def champion_version(client: MlflowClient, model_name: str) -> str | None:
    """The number of the version that has the alias."""
    version = client.get_registered_model(model_name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def _versions(client: MlflowClient, model_name: str, run_id: str) -> list[str]:
    """A run's versions of a model, the oldest first."""
    found = client.search_model_versions(f"name = '{model_name}' and run_id = '{run_id}'")
    return sorted((str(each.version) for each in found), key=int)


def _beats(client: MlflowClient, model_name: str, champion: str, run_id: str) -> bool:
    """Whether a version had a lower error than a run, on the same validation data."""

    def data_of(run: Run) -> set[tuple[str, str]]:
        inputs = run.inputs.dataset_inputs if run.inputs else []
        return {
            (each.dataset.name, each.dataset.digest)
            for each in inputs
            if any(tag.value == VALIDATION for tag in each.tags)
        }

    try:
        holder = client.get_run(client.get_model_version(model_name, champion).run_id or "")
    except MlflowException:  # its run has been deleted for good
        return False
    challenger = client.get_run(run_id)
    held, reached = (run.data.metrics.get("rmse_valid") for run in (holder, challenger))
    if held is None or reached is None or data_of(holder) != data_of(challenger):
        return False
    return held < reached


def _candidate(run: Run, within_limits: bool) -> Candidate:
    return Candidate(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        rmse_valid=run.data.metrics["rmse_valid"],
        inference_time=run.data.metrics["inference_time"] / 1e6,
        within_limits=within_limits,
    )
