import matplotlib.pyplot as plt
import polars as pl
from matplotlib.figure import Figure
from sklearn.base import BaseEstimator

from flows.taxi.features import TRIP_COLUMNS
from flows.taxi.plots import feature_importance, predicted_vs_actual
from tests.flows.taxi.trained import Trained


def bars(figure: Figure) -> dict[str, float]:
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))


def test_predictions_are_plotted_against_what_happened(trained: Trained) -> None:
    trips = trained.valid.kept
    figure = predicted_vs_actual(trained.boosted, trips)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("actual minutes", "predicted minutes")
    counted = axes.collections[0].get_array()
    assert counted is not None
    assert 0.9 * trips.height < counted.sum() <= trips.height
    assert plt.get_fignums() == []  # nothing stays behind in a process that lives on


def test_importance_shows_every_raw_column_of_both_models_most_important_on_top(
    trained: Trained,
) -> None:
    for pipeline in (trained.baseline, trained.boosted):
        importance = bars(feature_importance(pipeline, trained.valid.kept, rows=1_000))
        assert set(importance) == set(TRIP_COLUMNS)
        assert list(importance.values()) == sorted(importance.values())
    assert list(importance)[-1] == "trip_distance"
    baseline = bars(feature_importance(trained.baseline, trained.valid.kept, rows=1_000))
    assert baseline["lpep_pickup_datetime"] == 0, "the linear model doesn't look at it"


def test_importance_is_of_the_whole_month_not_of_its_first_days(trained: Trained) -> None:
    first_days = trained.valid.kept.sort("lpep_pickup_datetime")
    asked: list[object] = []

    class Spy(BaseEstimator):  # type: ignore[misc]
        def fit(self) -> None:
            """So that scikit-learn takes it for a model."""

        def predict(self, trips: "pl.DataFrame") -> object:
            asked.append(trips["lpep_pickup_datetime"].max())
            return trained.baseline.predict(trips)

    feature_importance(Spy(), first_days, rows=200)  # type: ignore[arg-type]
    assert all(f"{moment}" > "2023-02-20" for moment in asked)
