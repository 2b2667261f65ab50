"""The classifier: its sample, its threshold, its saved form, and how it is scored."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.metrics import average_precision_score

from flows.fraud import spec
from flows.fraud.model import balanced, cheapest_threshold, confusion, train
from flows.fraud.source import synthetic_transactions
from flows.fraud.spec import AMOUNT, CATEGORIES, SPEC, TARGET

ROWS = synthetic_transactions(1, 12_000).filter(pl.col(AMOUNT) > 0)
REST = synthetic_transactions(2, 6_000).filter(pl.col(AMOUNT) > 0)
TRUE = REST[TARGET].to_numpy()


@pytest.fixture(scope="module")
def model() -> Any:
    return train(ROWS)


def test_the_sample_has_all_frauds_and_as_many_honest_ones() -> None:
    sample = balanced(ROWS)
    frauds = sample.filter(pl.col(TARGET) == 1)
    assert len(sample) == 2 * len(frauds)
    assert frauds.sort("TransactionID").equals(ROWS.filter(pl.col(TARGET) == 1))
    assert sample.equals(balanced(ROWS))
    assert not sample.equals(sample.sort(TARGET))


def test_more_frauds_than_honest_ones_are_a_sample_too() -> None:
    mostly = ROWS.with_columns((1 - pl.col(TARGET)).alias(TARGET))
    assert (balanced(mostly)[TARGET] == 0).sum() == (mostly[TARGET] == 0).sum()


def test_the_threshold_costs_the_least_of_all(model: Any) -> None:
    scores = model.predict_proba(REST)[:, 1]
    costs = {
        each: spec.cost(TRUE, np.column_stack([scores, scores >= each]))
        for each in (*np.linspace(0, 1, 101), cheapest_threshold(TRUE, scores))
    }
    assert min(costs, key=costs.__getitem__) == cheapest_threshold(TRUE, scores)


def test_a_dearer_miss_lowers_the_threshold(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = model.predict_proba(REST)[:, 1]
    before = cheapest_threshold(TRUE, scores)
    monkeypatch.setattr("flows.fraud.model.MISSED_FRAUD", 1000.0)
    assert cheapest_threshold(TRUE, scores) < before
    monkeypatch.setattr("flows.fraud.model.MISSED_FRAUD", 0.0)
    assert cheapest_threshold(TRUE, scores) == 1


def test_the_threshold_is_in_the_saved_model_and_decides_its_flags(model: Any) -> None:
    saved = skops.io.loads(skops.io.dumps(model), trusted=list(SPEC.trusted_types))
    given = SPEC.model_input(REST)
    scores = saved.predict_proba(given)[:, 1]
    assert saved.predict(given).tolist() == (scores >= model.threshold).astype(int).tolist()
    assert 0 < saved.predict(given).sum() < len(REST)
    assert np.array_equal(SPEC.answer(saved, given), SPEC.answer(model, given))


ODD = pl.DataFrame(
    {
        "ProductCD": ["W", None, "never seen", "C"],
        "P_emaildomain": [None, "gmail.com", "", "x@y"],
        "R_emaildomain": pl.Series([None] * 4, dtype=pl.String),
        "card4": ["visa", None, "never seen", "discover"],
        "M1": ["T", "F", None, "?"],
        "M2": [None, None, "T", "F"],
        "M3": ["T", None, "F", None],
        AMOUNT: [68.5, None, 1e9, -1.0],
    }
)


def test_pandas_and_polars_missing_and_unknown_get_the_same_answers(model: Any) -> None:
    scores = model.predict_proba(ODD)
    assert np.isfinite(scores).all()
    none, nan = ({name: ODD[name].to_list() for name in ODD.columns} for _ in range(2))
    for name in CATEGORIES:
        nan[name] = [np.nan if value is None else value for value in nan[name]]
    frames = [
        SPEC.model_input(ODD),
        pd.DataFrame(none),
        pd.DataFrame(nan),
        pd.DataFrame(none).astype(dict.fromkeys(CATEGORIES, "category")),
        pd.DataFrame(none, dtype=object).astype({AMOUNT: float}),
        ODD.with_columns(pl.col(pl.String).cast(pl.Categorical)),
        ODD.with_columns(R_emaildomain=pl.lit(None)),
        ODD.with_columns(more=1).select(sorted([*ODD.columns, "more"])),
    ]
    for frame in frames:
        assert np.array_equal(model.predict_proba(frame), scores)
    rows = [model.predict_proba(ODD[n]) for n in range(len(ODD))]
    assert np.array_equal(np.concatenate(rows), scores)


def test_a_missing_category_is_one_of_its_own_and_an_unknown_one_is_none(model: Any) -> None:
    encoder = model.estimator[0].named_transformers_["pipeline"][-1]
    assert "missing" in encoder.categories_[CATEGORIES.index("card4")]
    encoded = model.estimator[0].transform(ODD)
    # training had a value for each ProductCD, so that one is missing is unknown
    assert encoded[:, :-1].sum(axis=1).tolist() == [7, 6, 4, 5]


def test_it_learns_from_the_balanced_sample_and_is_priced_at_the_true_share(model: Any) -> None:
    scores = model.predict_proba(REST)[:, 1]
    assert 0.2 < scores.mean() < 0.5  # of a sample like the rows it would be 0.035
    assert (scores >= model.threshold).mean() < 0.3  # of a balanced one it would be half


def test_it_tells_frauds_from_honest_transactions(model: Any) -> None:
    answers = SPEC.answer(model, SPEC.model_input(REST))
    found = {metric.name: metric.score(TRUE, answers) for metric in SPEC.metrics}
    assert found["roc_auc"] > 0.7
    assert found["pr_auc"] > 3 * TRUE.mean()
    assert found["cost"] < spec.MISSED_FRAUD * TRUE.mean()  # of flagging nobody
    assert found["frauds_caught"] > 2 * found["false_alarms"]


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_pr_auc_is_scikit_learns_with_ties_and_without(model: Any, decimals: int) -> None:
    scores = model.predict_proba(REST)[:, 1].round(decimals)
    answers = np.column_stack([scores, scores])
    expected = average_precision_score(TRUE, scores)
    assert spec.pr_auc(TRUE, answers) == pytest.approx(expected, rel=1e-12)


def test_cost_and_confusion_are_of_the_flags() -> None:
    true = np.array([1, 1, 0, 0, 0])
    answers = np.column_stack([[0.9, 0.1, 0.8, 0.2, 0.3], [1, 0, 1, 0, 0]])
    assert spec.cost(true, answers) == (spec.MISSED_FRAUD + spec.FALSE_ALARM) / 5
    assert spec.flagged(1, true, answers) == 1 / 2
    assert spec.flagged(0, true, answers) == 1 / 3
    shown = [text.get_text() for text in confusion(true, answers[:, 1]).axes[0].texts]
    assert shown == ["2", "1", "1", "1"]


@pytest.mark.parametrize(
    ("kind", "undefined"),
    [(0, {"pr_auc", "roc_auc", "frauds_caught"}), (1, {"roc_auc", "false_alarms"})],
)
@pytest.mark.filterwarnings("error")
def test_of_one_class_a_metric_has_no_value_rather_than_a_good_one(
    kind: int, undefined: set[str]
) -> None:
    true, answers = np.full(4, kind), np.column_stack([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]])
    found = {metric.name: metric.score(true, answers) for metric in SPEC.metrics}
    assert {name for name, value in found.items() if np.isnan(value)} == undefined
