"""The wine pipeline's own parts; whole runs are in tests/e2e."""

import numpy as np
import polars as pl
from sklearn.dummy import DummyClassifier

from flows.lifecycle.holdout import held_out
from flows.lifecycle.spec import load_spec
from flows.wine.spec import PLACE, SPEC, TARGET, accuracy, macro_f1
from flows.wine.train import read_wines


def test_the_wines_are_scikit_learns() -> None:
    wines = read_wines()
    assert wines.shape == (178, 14)
    assert wines[TARGET].value_counts(sort=True)["count"].to_list() == [71, 59, 48]
    assert not any(wines.null_count().row(0))


def test_enough_wines_of_each_cultivar_are_held_out() -> None:
    wines = read_wines()
    unseen = wines.filter(held_out(wines))
    assert 25 < len(unseen) < 45
    assert unseen[TARGET].n_unique() == 3


def test_the_model_is_not_told_the_cultivar() -> None:
    assert TARGET not in SPEC.model_input(read_wines()).columns


def test_a_guess_is_worse_than_the_limit() -> None:
    wines = read_wines()
    inputs, true = SPEC.model_input(wines), wines[TARGET].to_numpy()
    guess = DummyClassifier().fit(inputs, true).predict(inputs)
    assert accuracy(true, guess) < SPEC.limits["accuracy"]


def test_a_cultivar_that_is_never_named_counts_in_f1() -> None:
    true, predicted = np.array([0, 0, 0, 1]), np.zeros(4)
    assert accuracy(true, predicted) == 0.75
    assert macro_f1(true, predicted) == pl.Series([6 / 7, 0]).mean()


def test_the_place_of_the_spec_is_where_it_is() -> None:
    assert load_spec(PLACE) is SPEC
