"""What is a win, and what is noise."""

import numpy as np
import pytest

from flows.lifecycle.comparison import compare
from flows.lifecycle.spec import Metric, Values
from tests.flows.lifecycle.models import CLOSENESS, MAE, mae

# scikit-learn's own takes a hundred times as long
ACCURACY = Metric("accuracy", "", True, lambda true, predicted: float((true == predicted).mean()))
NUMBERS, CLASSES = (MAE, CLOSENESS), (ACCURACY,)


def predictions(metric: Metric, true: Values, worse: float, random: np.random.Generator) -> Values:
    """What a model says: wrong by noise, and more wrong by `worse`."""
    if metric in NUMBERS:
        return np.asarray(true + random.normal(scale=1 + worse, size=len(true)))
    wrong = random.random(len(true)) < 0.15 + worse
    return np.where(wrong, (true + 1) % 3, true)


def rows(metric: Metric, count: int, random: np.random.Generator) -> Values:
    return random.normal(size=count) if metric in NUMBERS else random.integers(0, 3, count)


@pytest.mark.parametrize("count", [15, 400])
@pytest.mark.parametrize("metric", [MAE, *CLASSES], ids=lambda metric: metric.name)
def test_of_a_hundred_pairs_of_equal_models_less_than_five_have_a_winner(
    metric: Metric, count: int
) -> None:
    wins = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        true = rows(metric, count, random)
        challenger, champion = (predictions(metric, true, 0, random) for _ in range(2))
        wins += compare(metric, true, challenger, champion, seed).wins
    assert wins < 5


@pytest.mark.parametrize("metric", [*NUMBERS, *CLASSES], ids=lambda metric: metric.name)
def test_the_clearly_better_one_wins_and_the_worse_one_does_not(metric: Metric) -> None:
    random = np.random.default_rng(0)
    true = rows(metric, 400, random)
    good, bad = (predictions(metric, true, worse, random) for worse in (0, 0.5))
    won, lost = compare(metric, true, good, bad), compare(metric, true, bad, good)
    assert won.wins
    assert not lost.wins
    assert 0 < won.low < won.gain < won.high
    assert won.gain == pytest.approx(abs(metric.score(true, good) - metric.score(true, bad)))
    assert (won.challenger, won.champion) == (metric.score(true, good), metric.score(true, bad))
    assert lost.gain == pytest.approx(-won.gain)


@pytest.mark.parametrize("metric", [*NUMBERS, *CLASSES], ids=lambda metric: metric.name)
def test_equal_predictions_never_win(metric: Metric) -> None:
    random = np.random.default_rng(0)
    true = rows(metric, 100, random)
    same = predictions(metric, true, 0, random)
    for seed in range(20):
        found = compare(metric, true, same, same, seed)
        assert (found.gain, found.low, found.high) == (0, 0, 0)
        assert not found.wins


def test_a_small_gain_on_every_row_wins_however_hard_the_rows_are() -> None:
    """The comparison is paired: both are scored on the same rows."""
    random = np.random.default_rng(0)
    true, hard = np.zeros(200), random.exponential(100, 200)
    assert compare(MAE, true, hard, hard + 0.1 * random.random(200)).wins


def caught(true: Values, flagged: Values) -> float:
    """Of rows without a rare class it has no value."""
    return float(flagged[true == 1].mean()) if true.any() else np.nan


CAUGHT = Metric("caught", "", higher_is_better=True, score=caught)


def test_resamples_without_the_rare_class_say_nothing_and_the_others_decide() -> None:
    true = (np.arange(40) < 2).astype(int)  # an eighth of the resamples has none
    found = compare(CAUGHT, true, true, 1 - true)
    assert found.wins
    assert (found.gain, found.low, found.high) == (1, 1, 1)


def test_rows_that_a_metric_has_no_value_on_are_refused() -> None:
    with pytest.raises(ValueError, match="caught has no value on these 40 rows: compare on others"):
        compare(CAUGHT, np.zeros(40), np.zeros(40), np.zeros(40))


@pytest.mark.parametrize("no_value", [np.nan, -np.inf])
def test_resamples_that_have_no_value_make_no_verdict(no_value: float) -> None:
    def all_there(true: Values, predicted: Values) -> float:
        return mae(true, predicted) if len(np.unique(true)) == len(true) else no_value

    metric = Metric("all_there", "", higher_is_better=True, score=all_there)
    true = np.arange(40.0)
    with pytest.raises(ValueError, match="all_there has no value on too many resamples of 40 rows"):
        compare(metric, true, true + 1, true)


def test_the_same_seed_gives_the_same_verdict() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=50)
    one, other = (predictions(MAE, true, 0, random) for _ in range(2))
    assert compare(MAE, true, one, other) == compare(MAE, true, one, other)
    assert compare(MAE, true, one, other) != compare(MAE, true, one, other, seed=1)
