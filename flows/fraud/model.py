"""The classifier: encoder, XGBoost and threshold as one scikit-learn model."""

import numpy as np
import pandas as pd
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve
from sklearn.model_selection import FixedThresholdClassifier, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from xgboost import XGBClassifier

from flows.fraud.spec import AMOUNT, CATEGORIES, FALSE_ALARM, MISSED_FRAUD, TARGET
from flows.lifecycle.spec import pandas_frame

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
    "n_jobs": 1,  # a row's trees take less than starting threads
}
SEED = 42


def filled(rows: pd.DataFrame | pl.DataFrame) -> NDArray[np.object_]:
    """Categories of n rows as text, shape (n, columns), those missing as "missing".

    The encoder would take the null of Polars and the NaN of pandas for two values.
    """
    frame = pandas_frame(rows) if isinstance(rows, pl.DataFrame) else rows.astype(object)
    return frame.where(frame.notna(), "missing").astype(str).to_numpy(object)


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
        max_categories=100,  # more than the data have: whatever a file holds, the model stays small
        sparse_output=False,
        dtype=np.float32,
    )
    columns = make_column_transformer(
        (make_pipeline(FunctionTransformer(filled), encode), list(CATEGORIES)),
        ("passthrough", [AMOUNT]),
    )
    return make_pipeline(columns, XGBClassifier(**PARAMETERS))


def cheapest_threshold(true: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    """The score from which on a flag costs less than it saves, over n rows of both classes."""
    alarmed, caught, thresholds = roc_curve(true, scores)
    frauds, honest = true.sum(), len(true) - true.sum()
    costs = (1 - caught) * frauds * MISSED_FRAUD + alarmed * honest * FALSE_ALARM
    return min(float(thresholds[np.argmin(costs)]), 1.0)  # the first one is infinite


def train(rows: pl.DataFrame) -> FixedThresholdClassifier:
    """Fit to a balanced sample; choose the threshold on other rows, at the true share of frauds."""
    fitted_on, priced = train_test_split(
        rows, test_size=0.2, random_state=SEED, stratify=rows[TARGET].to_numpy()
    )
    sample = balanced(fitted_on)
    model = pipeline().fit(sample, sample[TARGET].to_numpy())
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
