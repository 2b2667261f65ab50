from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient

from flows.lifecycle.champion import CHAMPION, CONTENT_TAG
from flows.lifecycle.staging import (
    Limits,
    NoCandidateError,
    best_candidate,
    champion_version,
    register_champion,
    require_within_limits,
)
from flows.platform.tracking import VALIDATION, InputData, dataset_input

LIMITS = Limits(rmse_valid=6.5, inference_time=20e-6)


def experiment(client: MlflowClient, **runs: tuple[float, float]) -> str:
    """An experiment with runs by name, each with its rmse_valid and seconds of inference_time."""
    experiment_id = client.create_experiment(uuid4().hex)
    for name, (rmse, seconds) in runs.items():
        run = client.create_run(experiment_id, run_name=name).info.run_id
        client.log_metric(run, "rmse_valid", rmse)
        client.log_metric(run, "inference_time", seconds * 1e6)  # in microseconds
    return str(experiment_id)


def model(
    client: MlflowClient, rmse: float | None = None, validated_on: str = ""
) -> tuple[str, str]:
    """A logged model that nobody will load: its URI and its run."""
    experiment_id = experiment(client)
    run = client.create_run(experiment_id).info.run_id
    if rmse is not None:
        client.log_metric(run, "rmse_valid", rmse)
    if validated_on:
        data = InputData(name=validated_on, sha256="0" * 64, uri="file:///raw", rows=1)
        client.log_inputs(run, [dataset_input(data, VALIDATION)])
    logged = client.create_logged_model(experiment_id, "model", run)
    folder = Path(logged.artifact_location)
    folder.mkdir(parents=True)
    folder.joinpath("MLmodel").write_text("flavors: {}\n")
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_uri, run


def register(client: MlflowClient, name: str, logged: tuple[str, str], text: str = "") -> str:
    return register_champion(client, name, *logged, text)


def champion(client: MlflowClient, name: str) -> str:
    return str(client.get_model_version_by_alias(name, CHAMPION).version)


def test_the_lowest_rmse_within_the_limits_is_the_candidate(client: MlflowClient) -> None:
    runs = experiment(client, worse=(6.0, 1e-6), best=(5.0, 19e-6), bad=(7.0, 1e-6))
    best = best_candidate(client, runs, LIMITS)
    assert (best.name, best.rmse_valid, best.inference_time) == ("best", 5.0, 19e-6)
    assert best.within_limits
    require_within_limits(best, LIMITS)


def test_a_model_that_is_too_slow_is_no_candidate_however_good(client: MlflowClient) -> None:
    runs = experiment(client, slow=(4.0, 21e-6), quick=(6.0, 1e-6))
    assert best_candidate(client, runs, LIMITS).name == "quick"


def test_a_run_on_the_limit_is_no_candidate(client: MlflowClient) -> None:
    for metrics in ((6.5, 1e-6), (5.0, 20e-6)):
        assert not best_candidate(client, experiment(client, edge=metrics), LIMITS).within_limits


def test_a_run_without_both_metrics_is_no_candidate(client: MlflowClient) -> None:
    runs = experiment(client, whole=(6.0, 1e-6))
    pruned = client.create_run(runs, run_name="pruned").info.run_id
    client.log_metric(pruned, "rmse_valid", 1.0)
    assert best_candidate(client, runs, LIMITS).name == "whole"


def test_runs_of_other_experiments_are_no_candidates(client: MlflowClient) -> None:
    experiment(client, other=(1.0, 1e-6))
    assert best_candidate(client, experiment(client, own=(6.0, 1e-6)), LIMITS).name == "own"


@pytest.mark.parametrize("seconds", [1e-9, 1e-5, 0.5, 3.0, 1e15])
def test_limits_of_any_size_are_understood(client: MlflowClient, seconds: float) -> None:
    runs = experiment(client, fits=(seconds / 2, seconds / 2))
    limits = Limits(rmse_valid=seconds, inference_time=seconds)
    assert best_candidate(client, runs, limits).within_limits


def test_without_a_candidate_the_message_shows_the_best_run_and_both_limits(
    client: MlflowClient,
) -> None:
    runs = experiment(client, **{"trial 3": (6.75, 12e-6), "trial 4": (8.0, 1e-6)})
    best = best_candidate(client, runs, LIMITS)
    with pytest.raises(NoCandidateError) as refused:
        require_within_limits(best, LIMITS)
    message = str(refused.value)
    assert "rmse_valid < 6.5 and inference_time < 2e-05 s per row" in message
    assert "'trial 3', has 6.750 and 1.20e-05" in message
    assert "the registry is as it was" in message
    assert "raise the limits" in message


def test_an_experiment_without_runs_is_said_to_have_none(client: MlflowClient) -> None:
    with pytest.raises(NoCandidateError, match="no run of this experiment has logged rmse_valid"):
        best_candidate(client, experiment(client), LIMITS)


def test_the_first_champion_is_version_1_with_alias_and_description(client: MlflowClient) -> None:
    name = uuid4().hex
    uri, run = model(client)
    assert register(client, name, (uri, run), "of January") == "1"
    version = client.get_model_version_by_alias(name, CHAMPION)
    assert (str(version.version), version.description) == ("1", "of January")
    assert version.run_id == run


def test_the_next_champion_takes_the_alias_and_leaves_the_old_version(
    client: MlflowClient,
) -> None:
    name = uuid4().hex
    assert [register(client, name, model(client), text) for text in "ab"] == ["1", "2"]
    assert champion(client, name) == "2"
    assert client.get_model_version(name, "1").description == "a"
    assert not client.get_model_version(name, "1").aliases


def test_staging_the_same_model_again_gives_the_version_that_is_there(
    client: MlflowClient,
) -> None:
    name, logged = uuid4().hex, model(client)
    first = register(client, name, logged, "first")
    assert register(client, name, logged, "again") == first
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert version.description == "again"


def test_staging_an_older_model_again_gives_it_the_alias_back(client: MlflowClient) -> None:
    name, old = uuid4().hex, model(client)
    register(client, name, old)
    register(client, name, model(client))
    assert register(client, name, old) == "1"
    assert champion(client, name) == "1"


def test_the_model_is_registered_where_its_client_points(
    client: MlflowClient, elsewhere: Path
) -> None:
    """A run that goes on in a new process hasn't told MLflow's globals where its server is."""
    assert mlflow.get_tracking_uri() != client.tracking_uri
    name = uuid4().hex
    register(client, name, model(client))
    assert champion(client, name) == "1"
    assert list(elsewhere.iterdir()) == []


def test_a_registered_model_has_a_description_that_a_user_may_change(client: MlflowClient) -> None:
    name = uuid4().hex
    register_champion(client, name, *model(client), "of January", "Minutes of a trip.")
    assert client.get_registered_model(name).description == "Minutes of a trip."
    client.update_registered_model(name, "Ours.")
    register_champion(client, name, *model(client), "of February", "Minutes of a trip.")
    assert client.get_registered_model(name).description == "Ours."


def test_a_version_has_the_hash_of_its_files(client: MlflowClient) -> None:
    name = uuid4().hex
    version = register(client, name, model(client))
    recorded = client.get_model_version(name, version).tags[CONTENT_TAG]
    assert len(recorded) == 64


def test_the_hash_is_of_the_files_as_they_were_at_the_first_registration(
    client: MlflowClient,
) -> None:
    name, logged = uuid4().hex, model(client)
    version = register(client, name, logged)
    recorded = client.get_model_version(name, version).tags[CONTENT_TAG]
    folder = client.get_logged_model(logged[0].removeprefix("models:/")).artifact_location
    Path(folder, "MLmodel").write_text("flavors: {python_function: {}}\n")
    assert register(client, name, logged) == version
    assert client.get_model_version(name, version).tags[CONTENT_TAG] == recorded


@pytest.mark.parametrize(
    ("held", "reached", "promoted"),
    [
        ((4.0, "feb"), (4.5, "feb"), False),
        ((4.5, "feb"), (4.0, "feb"), True),
        ((4.0, "feb"), (4.0, "feb"), True),
        ((4.0, "feb"), (4.5, "mar"), True),
        ((4.0, ""), (4.5, "feb"), True),
        ((None, "feb"), (4.5, "feb"), True),
    ],
)
def test_a_champion_that_did_better_on_the_same_data_keeps_the_alias(
    client: MlflowClient,
    held: tuple[float | None, str],
    reached: tuple[float, str],
    promoted: bool,
) -> None:
    name = uuid4().hex
    register(client, name, model(client, *held))
    version = register(client, name, model(client, *reached))
    assert version == "2"
    assert (champion_version(client, name) == version) is promoted


def test_two_attempts_at_one_run_end_with_one_version(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either has registered; MLflow then gives each a version."""
    name, logged = uuid4().hex, model(client)
    register_model, meet = mlflow.register_model, Barrier(2, timeout=60)

    def together(*arguments: object, **options: object) -> object:
        meet.wait()
        return register_model(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(mlflow, "register_model", together)
    with ThreadPoolExecutor() as threads:
        tries = [threads.submit(register, client, name, logged) for _ in range(2)]
        assert {each.result() for each in tries} == {"1"}
    assert [str(v.version) for v in client.search_model_versions(f"name = '{name}'")] == ["1"]
    assert champion(client, name) == "1"
