"""What people look at before they trust a model."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from sklearn.inspection import permutation_importance
from sklearn.pipeline import Pipeline

from flows.taxi.features import TRIP_COLUMNS, model_input


def predicted_vs_actual(pipeline: Pipeline, trips: pl.DataFrame) -> Figure:
    """Density of predicted over actual minutes, for n trips with a `duration`."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    density = axes.hexbin(
        trips["duration"].to_numpy(),
        pipeline.predict(trips),
        gridsize=60,
        extent=(0, 60, 0, 60),
        bins="log",
        mincnt=1,
    )
    axes.axline((0, 0), slope=1, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="actual minutes", ylabel="predicted minutes", title="Predicted and actual")
    figure.colorbar(density, label="trips")
    return figure


def feature_importance(pipeline: Pipeline, trips: pl.DataFrame, rows: int = 5_000) -> Figure:
    """How much worse, in minutes of RMSE, predictions get when one raw column is shuffled.

    Permutation importance (Breiman 2001, scikit-learn's) asks the whole pipeline, so the linear
    baseline and XGBoost can be compared.
    """
    # of the whole month: its first trips may share a weekday
    sample = trips.sample(min(rows, len(trips)), seed=0)
    importance = permutation_importance(
        pipeline,
        model_input(sample),
        sample["duration"].to_numpy(),
        scoring="neg_root_mean_squared_error",
        n_repeats=3,
        random_state=0,
    )
    order = np.argsort(importance.importances_mean)
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [TRIP_COLUMNS[i] for i in order],
        importance.importances_mean[order],
        xerr=importance.importances_std[order],
    )
    axes.set(xlabel="minutes of RMSE lost when shuffled", title="Feature importance")
    return figure
