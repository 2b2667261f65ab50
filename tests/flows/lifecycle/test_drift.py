"""A column that moves is found, whatever hides it; one that doesn't move isn't."""

import numpy as np
import polars as pl
import pytest

from flows.lifecycle.drift import OTHERS, Shift, shift

LIMIT = 0.1


def past(found: Shift) -> bool:
    return found.stability > max(LIMIT, found.by_chance)


def numbers(rows: int, factor: float = 1, seed: int = 0) -> pl.Series:
    return pl.Series(np.random.default_rng(seed).gamma(2, 1.5, rows) * factor)


def words(rows: int, *shares: float, seed: int = 0) -> pl.Series:
    names = ["one", "two", "three"][: len(shares)]
    return pl.Series(np.random.default_rng(seed).choice(names, rows, p=shares))


@pytest.mark.parametrize("outliers", [0, 0.0006])
def test_values_half_as_large_again_have_moved_whatever_outliers_there_are(outliers: float) -> None:
    def dirty(column: pl.Series) -> pl.Series:
        many = round(len(column) * outliers)
        return pl.concat([column, pl.Series([100_000.0] * many, dtype=pl.Float64)])

    reference = dirty(numbers(60_000))
    same, larger = dirty(numbers(60_000, seed=1)), dirty(numbers(60_000, 1.5, seed=1))
    assert not past(shift("miles", reference, same))
    assert past(shift("miles", reference, larger))


@pytest.mark.parametrize("rows", [30, 300, 3000])
def test_few_rows_of_one_population_have_not_moved(rows: int) -> None:
    pairs = [(numbers(rows, seed=i), numbers(rows, seed=1000 + i)) for i in range(100)]
    assert sum(past(shift("miles", *pair)) for pair in pairs) <= 1


@pytest.mark.parametrize("rows", [50, 100, 1000, 3000])
def test_few_rows_of_many_categories_have_not_moved(rows: int) -> None:
    shares = 1 / (np.arange(250) + 3) ** 1.25
    draw = np.random.default_rng(0)
    found = []
    for _ in range(100):
        zones = draw.choice(250, (2, rows), p=shares / shares.sum())
        found.append(shift("zone", *(pl.Series(each).cast(pl.String) for each in zones)))
    assert sum(past(each) for each in found) <= 2
    assert sum(each.unknown > each.unknown_by_chance for each in found) <= 1
    assert all(0 < each.unknown_by_chance <= 1 for each in found)


def test_among_many_rows_chance_knows_every_category() -> None:
    reference = words(5000, 0.6, 0.3, 0.1)
    assert shift("kind", reference, reference).unknown_by_chance == 0


def test_a_share_by_hand() -> None:
    found = shift("kind", words(100, 1.0), pl.Series(["one"] * 50 + ["two"] * 50))
    assert (found.bins, found.before, found.now) == (["one", OTHERS], [1, 0], [0.5, 0.5])
    p, q = np.array([100.5, 0.5]) / 101, np.array([50.5, 50.5]) / 101
    assert found.stability == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert found.unknown == 0.5


def test_categories_move_when_their_shares_do() -> None:
    reference = words(5000, 0.6, 0.3, 0.1)
    assert not past(shift("kind", reference, words(5000, 0.6, 0.3, 0.1, seed=1)))
    assert past(shift("kind", reference, words(5000, 0.3, 0.6, 0.1, seed=1)))


@pytest.mark.parametrize(("old", "new"), [(0, 1), (1, 0)])
def test_flags_move_either_way(old: int, new: int) -> None:
    changed = [old] * 70 + [new] * 30
    assert past(shift("flag", pl.Series([old] * 100), pl.Series(changed)))


def test_a_fee_that_nearly_all_pay_and_then_nobody_has_moved() -> None:
    fees = np.full(5000, 0.5)
    fees[:20] = np.arange(20)
    found = shift("fee", pl.Series(fees), pl.Series(np.zeros(5000)))
    assert found.bins == ["< 0.5", "≤ 0.5", "> 0.5"]
    assert found.now == [1, 0, 0]
    assert past(found)
    assert not past(shift("fee", pl.Series(fees), pl.Series(fees[10:])))


def test_zero_is_known_with_a_minus_too() -> None:
    found = shift("flag", pl.Series([0.0, 1.0] * 50), pl.Series([-0.0, 1.0] * 50))
    assert (found.unknown, found.stability) == (0, 0)


@pytest.mark.parametrize("lacking", [None, float("nan")])
def test_missing_values_are_counted_and_are_no_shift_of_the_others(lacking: float | None) -> None:
    reference, month = numbers(1000), numbers(1000, seed=1)
    half = month.to_list()[:500] + [lacking] * 500
    found = shift("miles", reference, pl.Series(half, strict=False))
    assert (found.missing_before, found.missing) == (0, 0.5)
    assert found.newly_missing == 0.5
    assert not past(found)


@pytest.mark.parametrize("kind", [pl.Float64, pl.Null, pl.String])
def test_a_column_without_a_value_is_all_missing(kind: type[pl.DataType]) -> None:
    empty = pl.Series([None] * 50, dtype=kind)
    for found in (shift("miles", numbers(50), empty), shift("miles", empty, numbers(50))):
        assert not past(found)
        assert found.unknown <= found.unknown_by_chance
        assert {found.missing_before, found.missing} == {0, 1}


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="miles: there are no rows"):
        shift("miles", numbers(10), numbers(0))
