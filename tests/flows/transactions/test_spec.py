import numpy as np
import polars as pl

from flows.lifecycle.holdout import held_out
from flows.lifecycle.spec import load_spec
from flows.transactions.contract import augment
from flows.transactions.fake_api import UnreliableApi
from flows.transactions.spec import PLACE, SPEC, TARGET, balanced_accuracy, labelled


def test_the_model_is_told_neither_the_outcome_nor_the_id() -> None:
    rows = labelled(augment(UnreliableApi(1, 300).versions[0]).rows)
    told = SPEC.model_input(rows)
    assert not {TARGET, "id", "status", "updated_at"} & set(told.columns)
    assert rows[TARGET].unique().sort().to_list() == [0, 1]


def test_a_transaction_that_is_refunded_later_stays_held_out() -> None:
    api = UnreliableApi(1, 1000, faults={"changes": 1})
    api("/transactions")
    before, after = (labelled(augment(version).rows) for version in api.versions)
    assert not before.join(after, on=["id", TARGET], how="anti").is_empty()
    for rows in (before, after):
        assert 0.1 < held_out(rows.select("id")).mean() < 0.3  # type: ignore[operator]
    unseen = [set(rows.filter(held_out(rows.select("id")))["id"]) for rows in (before, after)]
    assert unseen[0] <= unseen[1]


def test_a_guess_is_worse_than_the_limit() -> None:
    true = np.array([0, 0, 0, 1])
    assert balanced_accuracy(true, np.zeros(4)) == 0.5 < SPEC.limits["balanced_accuracy"]
    assert balanced_accuracy(true, np.array([0, 0, 1, 1])) == pl.Series([2 / 3, 1]).mean()


def test_the_place_of_the_spec_is_where_it_is() -> None:
    assert load_spec(PLACE) is SPEC
