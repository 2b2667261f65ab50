import numpy as np
import optuna
import pytest
import xgboost as xgb

from flows.taxi import search as module
from flows.taxi.matrices import Numbers
from flows.taxi.models import boosted_pipeline, rmse
from flows.taxi.search import BOOST_ROUNDS, EARLY_STOPPING_ROUNDS, Trial, search, suggest
from tests.flows.taxi.trained import Trained, in_memory

# the tutorial's hyperopt space; its log bounds are powers of e
BOUNDS = {
    "max_depth": (4, 100),
    "learning_rate": (np.exp(-3), 1),
    "reg_alpha": (np.exp(-5), np.exp(-1)),
    "reg_lambda": (np.exp(-6), np.exp(-1)),
    "min_child_weight": (np.exp(-1), np.exp(3)),
}


def noise(train: int, valid: int) -> tuple[xgb.DMatrix, xgb.DMatrix]:
    """Features that say a little about the answer, of so many rows."""

    def made(rows: int, seed: int) -> Numbers:
        rng = np.random.default_rng(seed)
        features = rng.uniform(size=(rows, 5)).astype(np.float32)
        return features, features[:, 0] * 10 + rng.normal(size=rows)

    return in_memory(made(train, 1), made(valid, 2))


def test_the_search_space_is_the_tutorials() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(300)]
    drawn = [suggest(trial) for trial in trials]
    for name, (low, high) in BOUNDS.items():
        values = [params[name] for params in drawn]
        distribution = trials[0].distributions[name]
        assert (distribution.low, distribution.high) == (low, high)  # type: ignore[attr-defined]
        assert low <= min(values) <= max(values) <= high
    assert all(isinstance(params["max_depth"], int) for params in drawn)
    # log-uniform: as many below the middle power of e as above
    below = np.mean([params["learning_rate"] < np.exp(-1.5) for params in drawn])
    assert 0.4 < below < 0.6


def test_the_same_seed_gives_the_same_trials_and_another_seed_others() -> None:
    months = noise(500, 200)
    first, again, other = (search(*months, 4, seed) for seed in (1, 1, 2))
    assert first == again
    assert [trial.params for trial in first] != [trial.params for trial in other]


def test_every_trial_is_reported_once_in_order_as_it_ends() -> None:
    told: list[Trial] = []
    trials = search(*noise(500, 200), 4, 1, on_trial=told.append)
    assert told == trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert all(set(trial.params) == set(BOUNDS) for trial in trials)


def test_a_trial_without_prospects_is_pruned_and_leaves_no_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WARMUP_ROUNDS", 0)
    trials = search(*noise(500, 200), 20, 1)
    pruned = [trial for trial in trials if trial.rmse_valid is None]
    assert 0 < len(pruned) < 15, "the first five run to their end"
    assert all(trial.booster is None and 0 < trial.rounds < BOOST_ROUNDS for trial in pruned)
    assert all(trial.booster for trial in trials if trial.rmse_valid is not None)
    assert min(trial.number for trial in pruned) >= 5


def test_a_trials_model_has_the_rmse_that_it_reports(trained: Trained) -> None:
    for trial in trained.trials:
        assert trial.booster is not None
        pipeline = boosted_pipeline(trained.features, trial.booster)
        assert rmse(pipeline, trained.valid.kept) == pytest.approx(trial.rmse_valid, rel=1e-5)
        assert 0 < trial.rounds <= BOOST_ROUNDS


def test_training_stops_when_the_validation_month_gains_no_more_and_keeps_the_best_rounds() -> None:
    (trial,) = search(*noise(200, 200), 1, 3)
    assert trial.rounds < BOOST_ROUNDS
    assert trial.booster is not None
    model = xgb.Booster(model_file=bytearray(trial.booster))
    assert model.num_boosted_rounds() == trial.rounds - EARLY_STOPPING_ROUNDS


def test_an_interrupted_trial_ends_the_search() -> None:
    def interrupt(trial: Trial) -> None:
        raise RuntimeError("MLflow is gone")

    with pytest.raises(RuntimeError, match="MLflow is gone"):
        search(*noise(200, 200), 3, 1, on_trial=interrupt)
