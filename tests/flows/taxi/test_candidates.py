from uuid import uuid4

import pytest
from mlflow import MlflowClient

from flows.taxi.candidates import (
    Limits,
    NoCandidateError,
    best_candidates,
    require_within_limits,
)

LIMITS = Limits(rmse_valid=6.5, inference_time=20e-6)


def experiment(client: MlflowClient, **runs: tuple[float, float]) -> str:
    """An experiment with runs by name, each with its rmse_valid and seconds of inference_time."""
    experiment_id = client.create_experiment(uuid4().hex)
    for name, (rmse, seconds) in runs.items():
        run = client.create_run(experiment_id, run_name=name).info.run_id
        client.log_metric(run, "rmse_valid", rmse)
        client.log_metric(run, "inference_time", seconds * 1e6)  # in microseconds
    return str(experiment_id)


def test_the_lowest_rmse_within_the_limits_is_the_candidate(client: MlflowClient) -> None:
    runs = experiment(client, worse=(6.0, 1e-6), best=(5.0, 19e-6), bad=(7.0, 1e-6))
    best = best_candidates(client, runs, LIMITS)[0]
    assert (best.name, best.rmse_valid, best.inference_time) == ("best", 5.0, 19e-6)
    assert best.within_limits
    require_within_limits(best, LIMITS)


def test_five_candidates_come_the_best_first(client: MlflowClient) -> None:
    runs = experiment(client, **{f"trial {n}": (4 + n / 10, 1e-6) for n in (5, 3, 1, 6, 2, 4)})
    found = best_candidates(client, runs, LIMITS)
    assert [each.name for each in found] == [f"trial {n}" for n in (1, 2, 3, 4, 5)]


def test_a_model_that_is_too_slow_is_no_candidate_however_good(client: MlflowClient) -> None:
    runs = experiment(client, slow=(4.0, 21e-6), quick=(6.0, 1e-6))
    assert best_candidates(client, runs, LIMITS)[0].name == "quick"


def test_a_run_on_the_limit_is_no_candidate(client: MlflowClient) -> None:
    for metrics in ((6.5, 1e-6), (5.0, 20e-6)):
        assert not best_candidates(client, experiment(client, edge=metrics), LIMITS)[
            0
        ].within_limits


def test_a_run_without_both_metrics_is_no_candidate(client: MlflowClient) -> None:
    runs = experiment(client, whole=(6.0, 1e-6))
    pruned = client.create_run(runs, run_name="pruned").info.run_id
    client.log_metric(pruned, "rmse_valid", 1.0)
    assert best_candidates(client, runs, LIMITS)[0].name == "whole"


def test_runs_of_other_experiments_are_no_candidates(client: MlflowClient) -> None:
    experiment(client, other=(1.0, 1e-6))
    assert best_candidates(client, experiment(client, own=(6.0, 1e-6)), LIMITS)[0].name == "own"


@pytest.mark.parametrize("seconds", [1e-9, 1e-5, 0.5, 3.0, 1e15])
def test_limits_of_any_size_are_understood(client: MlflowClient, seconds: float) -> None:
    runs = experiment(client, fits=(seconds / 2, seconds / 2))
    limits = Limits(rmse_valid=seconds, inference_time=seconds)
    assert best_candidates(client, runs, limits)[0].within_limits


def test_without_a_candidate_the_message_shows_the_best_run_and_both_limits(
    client: MlflowClient,
) -> None:
    runs = experiment(client, **{"trial 3": (6.75, 12e-6), "trial 4": (8.0, 1e-6)})
    best = best_candidates(client, runs, LIMITS)[0]
    with pytest.raises(NoCandidateError) as refused:
        require_within_limits(best, LIMITS)
    message = str(refused.value)
    assert "rmse_valid < 6.5 and inference_time < 2e-05 s per row" in message
    assert "'trial 3', has 6.750 and 1.20e-05" in message
    assert "the registry is as it was" in message
    assert "raise the limits" in message


def test_an_experiment_without_runs_is_said_to_have_none(client: MlflowClient) -> None:
    with pytest.raises(NoCandidateError, match="no run of this experiment has logged rmse_valid"):
        best_candidates(client, experiment(client), LIMITS)[0]
