"""What the models see of a trip: plain scikit-learn transformers from raw trips to numbers."""

from typing import Self

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

# A model's input: the raw trip, as TLC names its columns.
TRIP_COLUMNS = ("lpep_pickup_datetime", "PULocationID", "DOLocationID", "trip_distance")
FEATURE_NAMES = ("pickup_zone", "dropoff_zone", "trip_distance", "hour", "weekday")

# New York to Philadelphia; TLC's records beyond it (up to 200,000 miles) are meter failures.
MAX_MILES = 100.0

Trips = pl.DataFrame | pd.DataFrame


def route_ids(trips: Trips) -> NDArray[np.int64]:
    """One integer a pick-up and drop-off pair (the tutorial's PU_DO); zones have up to 3 digits.

    Args:
        trips: n trips.

    Returns:
        Shape (n,).
    """
    pickup, dropoff = (trips[c].to_numpy() for c in ("PULocationID", "DOLocationID"))
    return (pickup.astype(np.int64) * 1000 + dropoff.astype(np.int64)).astype(np.int64)


def model_input(trips: pl.DataFrame) -> pd.DataFrame:
    """The raw trips as a deployed model gets them, in pandas.

    Zones as 64-bit integers: MLflow accepts smaller ones for these, but not the other way.
    """
    columns = {column: trips[column].to_numpy() for column in TRIP_COLUMNS}
    zones = dict.fromkeys(("PULocationID", "DOLocationID"), "int64")
    return pd.DataFrame(columns).astype(zones)


class TripFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Zones, distance, hour and weekday, for a tree model.

    `fit` learns each route's median distance. `transform` uses it where a trip's own distance
    can't be true (a meter that didn't run), so that such a trip still gets a sensible answer;
    on a route never seen it leaves the distance missing, which XGBoost handles.
    """

    def fit(self, trips: Trips, y: object = None) -> Self:
        """Learn the routes' median distances (miles) from n trips; `y` is not used."""
        medians = (
            pl.DataFrame({"route": route_ids(trips), "miles": trips["trip_distance"].to_numpy()})
            .filter(pl.col("miles").is_between(0, MAX_MILES, closed="right"))
            .group_by("route")
            .agg(pl.col("miles").median())
            .sort("route")
        )
        self.routes_ = medians["route"].to_numpy()
        self.route_miles_ = medians["miles"].to_numpy()
        return self

    def transform(self, trips: Trips) -> NDArray[np.float32]:
        """Turn n trips into numbers.

        Returns:
            Shape (n, 5), in the order of FEATURE_NAMES.
        """
        miles = trips["trip_distance"].to_numpy().astype(np.float64)
        broken = ~((miles > 0) & (miles <= MAX_MILES))
        if broken.any():
            miles = np.where(broken, self._usual_miles(route_ids(trips)), miles)
        # pandas may count in seconds, which polars doesn't know
        pickup = pl.Series(trips["lpep_pickup_datetime"].to_numpy().astype("datetime64[us]"))
        columns = (
            trips["PULocationID"].to_numpy(),
            trips["DOLocationID"].to_numpy(),
            miles,
            pickup.dt.hour().to_numpy() + pickup.dt.minute().to_numpy() / 60,
            pickup.dt.weekday().to_numpy(),
        )
        return np.column_stack([column.astype(np.float32) for column in columns])

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns that `transform` returns."""
        return np.array(FEATURE_NAMES, dtype=object)

    def _usual_miles(self, routes: NDArray[np.int64]) -> NDArray[np.float64]:
        if not len(self.routes_):
            return np.full(len(routes), np.nan)
        place = np.searchsorted(self.routes_, routes).clip(max=len(self.routes_) - 1)
        known = self.routes_[place] == routes
        return np.where(known, self.route_miles_[place], np.nan)


class RouteAndDistance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The tutorial's two features, PU_DO and distance: shape (n, 2), the route as its number."""

    def fit(self, trips: Trips, y: object = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, trips: Trips) -> NDArray[np.float64]:
        """Turn n trips into (route, miles), shape (n, 2)."""
        return np.column_stack(
            [route_ids(trips), trips["trip_distance"].to_numpy().astype(np.float64)]
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True
