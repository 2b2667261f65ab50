"""What `flows.lifecycle` has to know of the fraud model: its columns, metrics and costs."""

from functools import partial
from typing import Any

import numpy as np
import polars as pl

from flows.fraud.served import Transaction
from flows.lifecycle.spec import Metric, ModelSpec, Values, pandas_frame

PLACE = "flows.fraud.spec:SPEC"
OWNER = "fraud-team"
"""A tag of each version: who answers for it."""
ID, TARGET, AMOUNT = "TransactionID", "isFraud", "TransactionAmt"
CATEGORIES = ("ProductCD", "P_emaildomain", "R_emaildomain", "card4", "M1", "M2", "M3")
# What the threshold weighs, in dollars: an average fraud, and a call to an honest customer.
MISSED_FRAUD, FALSE_ALARM = 100.0, 5.0
# Columns of the answers that metrics score.
SCORE, FLAG = 0, 1


def answer(model: Any, given: Any) -> Values:
    """Each transaction's score, 0 to 1, and whether the threshold flags it: shape (n, 2)."""
    return np.column_stack([model.predict_proba(given)[:, 1], model.predict(given)])


def pr_auc(true: Values, answers: Values) -> float:
    """Average precision; a random score has the share of frauds.

    As scikit-learn's average_precision_score, in a fifth of the time: a comparison asks 2000 times.
    """
    order = np.argsort(-answers[:, SCORE])
    scores, found = answers[order, SCORE], np.cumsum(true[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores
    gained = np.diff(found[last], prepend=0)
    return float((gained * found[last] / (last + 1)).sum() / found[-1]) if found[-1] else np.nan


def roc_auc(true: Values, answers: Values) -> float:
    from sklearn.metrics import roc_auc_score

    both = len(np.unique(true)) == 2
    return float(roc_auc_score(true, answers[:, SCORE])) if both else np.nan


def cost(true: Values, answers: Values) -> float:
    """Dollars a transaction that the flags cost."""
    missed, alarms = (true > answers[:, FLAG]).sum(), (true < answers[:, FLAG]).sum()
    return float(missed * MISSED_FRAUD + alarms * FALSE_ALARM) / len(true)


def flagged(kind: int, true: Values, answers: Values) -> float:
    """The share of the honest (0) or fraudulent (1) that is flagged: a row of the confusion."""
    flags = answers[true == kind, FLAG]
    return float(flags.mean()) if len(flags) else np.nan


SPEC = ModelSpec(
    name="fraud-classifier",
    about=(
        "Which card transactions are fraud. `predict` flags them by a threshold that makes missed "
        f"frauds (${MISSED_FRAUD:g}) and false alarms (${FALSE_ALARM:g}) cost the least."
    ),
    metrics=(
        Metric("pr_auc", "", higher_is_better=True, score=pr_auc),
        Metric("roc_auc", "", higher_is_better=True, score=roc_auc),
        Metric("cost", "$ per transaction", higher_is_better=False, score=cost),
        Metric("frauds_caught", "", higher_is_better=True, score=partial(flagged, 1)),
        Metric("false_alarms", "", higher_is_better=False, score=partial(flagged, 0)),
    ),
    target=TARGET,
    model_input=lambda rows: pandas_frame(rows.select(*CATEGORIES, AMOUNT)),
    row_error=lambda true, answers: np.abs(true - answers[:, SCORE]),
    answer=answer,
    answers=("score", "flag"),
    limits={"roc_auc": 0.6},
    segments={"product": pl.col("ProductCD"), "card": pl.col("card4")},
    trusted_types=(
        "flows.fraud.model.filled",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
    ),
    served=Transaction,
)
