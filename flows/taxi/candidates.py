"""Which of an experiment's runs may be registered: those within the limits."""

from mlflow import MlflowClient
from mlflow.entities import Run
from pydantic import BaseModel


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


def best_candidates(client: MlflowClient, experiment_id: str, limits: Limits) -> list[Candidate]:
    """The five runs with the lowest `rmse_valid` within the limits, the best first; where none is
    within them, the lowest of all.

    Raises:
        NoCandidateError: no run has logged both metrics.
    """
    within = (
        f"metrics.rmse_valid < {limits.rmse_valid} "
        f"and metrics.inference_time < {limits.inference_time * 1e6:.9f}"
    )
    for condition in (within, "metrics.rmse_valid >= 0 and metrics.inference_time >= 0"):
        runs = client.search_runs(
            [experiment_id], condition, max_results=5, order_by=["metrics.rmse_valid ASC"]
        )
        if runs:
            return [_candidate(run, within_limits=condition == within) for run in runs]
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


def _candidate(run: Run, within_limits: bool) -> Candidate:
    return Candidate(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        rmse_valid=run.data.metrics["rmse_valid"],
        inference_time=run.data.metrics["inference_time"] / 1e6,
        within_limits=within_limits,
    )
