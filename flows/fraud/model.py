"""The classifier: encoder, XGBoost and threshold as one scikit-learn model."""

import os
from typing import Self

import numpy as np
import pandas as pd
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve
from sklearn.model_selection import FixedThresholdClassifier, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

from flows.fraud.spec import AMOUNT, CATEGORIES, FALSE_ALARM, MISSED_FRAUD, TARGET

MISSING = "missing"
# More than the data have of email domains: whatever a file holds, the model stays small.
MOST_CATEGORIES = 100
# The tutorial's.
PARAMETERS = {
    "n_estimators": 100,
    "learning_rate": 0.1,
    "max_depth": 3,
    "min_child_weight": 1,
    "gamma": 0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "objective": "binary:logistic",
    "scale_pos_weight": 1,
    "random_state": 27,
}
SEED = 42
THREADS = 4
PRICED_SHARE = 0.2
"""Of the training rows: on them, at the true share of frauds, the threshold is chosen."""


class FilledCategories(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Categories as text, those missing as "missing".

    The encoder would take the null of Polars and the NaN of pandas for two values.
    """

    def fit(self, X: object, y: object = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, X: pd.DataFrame | pl.DataFrame) -> NDArray[np.object_]:
        """Fill n rows: shape (n, columns)."""
        return np.column_stack([_filled(X[name]) for name in X.columns])

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _filled(values: pd.Series | pl.Series) -> NDArray[np.object_]:
    if isinstance(values, pl.Series):
        return values.cast(pl.String).fill_null(MISSING).to_numpy().astype(object)
    return values.astype(object).where(values.notna(), MISSING).astype(str).to_numpy(object)


def balanced(rows: pl.DataFrame) -> pl.DataFrame:
    """All frauds, and as many honest transactions, drawn by a seed."""
    frauds = rows.filter(pl.col(TARGET) == 1)
    honest = rows.filter(pl.col(TARGET) == 0)
    drawn = honest.sample(min(len(frauds), len(honest)), seed=SEED)
    return pl.concat([frauds, drawn]).sample(fraction=1, shuffle=True, seed=SEED)


def pipeline() -> Pipeline:
    """The tutorial's encoder and trees, not fitted: categories and amount in, a score out."""
    encode = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=MOST_CATEGORIES,
        sparse_output=False,
        dtype=np.float32,
    )
    columns = [
        ("categories", make_pipeline(FilledCategories(), encode), list(CATEGORIES)),
        ("amount", "passthrough", [AMOUNT]),
    ]
    trees = XGBClassifier(**PARAMETERS, n_jobs=min(THREADS, os.cpu_count() or 1))
    return Pipeline([("encode", ColumnTransformer(columns)), ("xgboost", trees)])


def cheapest_threshold(true: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    """The score from which on a flag costs less than it saves, over n rows of both classes."""
    alarmed, caught, thresholds = roc_curve(true, scores)
    frauds, honest = true.sum(), len(true) - true.sum()
    costs = (1 - caught) * frauds * MISSED_FRAUD + alarmed * honest * FALSE_ALARM
    return min(float(thresholds[np.argmin(costs)]), 1.0)  # the first one is infinite


def train(rows: pl.DataFrame) -> FixedThresholdClassifier:
    """Fit to a balanced sample of the rows, and choose the threshold on rows that it hasn't."""
    fitted_on, priced = train_test_split(
        rows, test_size=PRICED_SHARE, random_state=SEED, stratify=rows[TARGET].to_numpy()
    )
    sample = balanced(fitted_on)
    model = pipeline().fit(sample, sample[TARGET].to_numpy())
    model[-1].set_params(n_jobs=1)  # a row's trees take less than starting threads
    threshold = cheapest_threshold(priced[TARGET].to_numpy(), model.predict_proba(priced)[:, 1])
    return FixedThresholdClassifier(model, threshold=threshold, response_method="predict_proba")


def confusion(true: NDArray[np.integer], flags: NDArray[np.integer]) -> Figure:
    """How many of n transactions of each kind are flagged."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    names = ["honest", "fraud"]
    ConfusionMatrixDisplay.from_predictions(
        true, flags, display_labels=names, values_format=",", colorbar=False, ax=figure.subplots()
    )
    return figure
