"""Optuna's TPE over the tutorial's search space, pruned and early-stopped."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import xgboost as xgb
from optuna_integration import XGBoostPruningCallback

# Not searched. The tutorial's space goes to depth 100: growing the best leaf first and stopping
# at 128 leaves keeps such trees cheap, and more accurate (figures:
# docs/decisions/0007-trees-grow-by-best-leaf.md).
# A core stays free: OpenMP's threads wait for each other, so one that shares its core with a
# server (on a laptop: Prefect's, MLflow's) holds up all.
FIXED_PARAMS: dict[str, object] = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_leaves": 128,
    "nthread": max(1, (os.cpu_count() or 1) - 1),
}
BOOST_ROUNDS = 100
EARLY_STOPPING_ROUNDS = 5
# No trial is pruned before this round: a low learning rate starts behind and ends ahead.
WARMUP_ROUNDS = 30


@dataclass(frozen=True)
class Trial:
    """One finished trial."""

    number: int
    params: dict[str, float]
    rmse_valid: float | None
    """Minutes; None if the trial was pruned."""
    rounds: int
    """Boosting rounds that ran."""
    booster: bytes | None
    """XGBoost's UBJSON; None if the trial was pruned."""


def suggest(trial: optuna.Trial) -> dict[str, float]:
    """A point of the tutorial's search space (its hyperopt bounds; log ones are powers of e)."""
    return {
        "max_depth": trial.suggest_int("max_depth", 4, 100),
        "learning_rate": trial.suggest_float("learning_rate", np.exp(-3), 1.0, log=True),
        "reg_alpha": trial.suggest_float("reg_alpha", np.exp(-5), np.exp(-1), log=True),
        "reg_lambda": trial.suggest_float("reg_lambda", np.exp(-6), np.exp(-1), log=True),
        "min_child_weight": trial.suggest_float(
            "min_child_weight", np.exp(-1), np.exp(3), log=True
        ),
    }


def search(
    train: xgb.DMatrix,
    valid: xgb.DMatrix,
    num_trials: int,
    seed: int,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Look for the parameters with the lowest RMSE on the validation month.

    Args:
        train, valid: the months' matrices (matrices.py).
        num_trials: how many trials; pruned ones count.
        seed: of the sampler and of XGBoost: the same seed on the same machine, the same trials.
        on_trial: called after each trial.

    Returns:
        The trials in the order they ran.
    """
    trials: list[Trial] = []

    def finished(trial: Trial) -> None:
        trials.append(trial)
        on_trial(trial)

    def objective(trial: optuna.Trial) -> float:
        params = suggest(trial)
        history: dict[str, dict[str, list[float]]] = {}
        try:
            booster = xgb.train(
                FIXED_PARAMS | params | {"seed": seed},
                train,
                num_boost_round=BOOST_ROUNDS,
                evals=[(valid, "valid")],
                evals_result=history,
                verbose_eval=False,
                callbacks=[
                    XGBoostPruningCallback(trial, "valid-rmse"),
                    xgb.callback.EarlyStopping(rounds=EARLY_STOPPING_ROUNDS, save_best=True),
                ],
            )
        except optuna.TrialPruned:
            rounds = len(trial.study.trials[trial.number].intermediate_values)
            finished(Trial(trial.number, params, None, rounds, None))
            raise
        best = min(history["valid"]["rmse"])
        rounds = len(history["valid"]["rmse"])
        finished(Trial(trial.number, params, best, rounds, bytes(booster.save_raw("ubj"))))
        return best

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=WARMUP_ROUNDS),
    )
    study.optimize(objective, n_trials=num_trials)
    return trials
