"""What the models see of a trip: plain scikit-learn transformers from raw trips to numbers."""

from collections.abc import Iterable
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
MAX_ZONES = 1000

Trips = pl.DataFrame | pd.DataFrame


def numbers(trips: Trips, column: str) -> NDArray[np.float64]:
    """A column of any type that a reader of Parquet gives numbers; NaN where a value is missing."""
    values = trips[column]
    if isinstance(values, pl.Series):
        return values.cast(pl.Float64, strict=False).to_numpy()
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def zone_ids(trips: Trips, column: str) -> NDArray[np.int64]:
    """A column's zones, which have up to 3 digits; -1 where it is missing or can't be a zone."""
    zones = numbers(trips, column)
    possible = (zones >= 0) & (zones < MAX_ZONES) & (zones == np.floor(zones))
    return np.where(possible, zones, -1).astype(np.int64)


def route_ids(trips: Trips) -> NDArray[np.int64]:
    """One integer a pick-up and drop-off pair (the tutorial's PU_DO); -1 where a zone is missing.

    Args:
        trips: n trips.

    Returns:
        Shape (n,).
    """
    pickup, dropoff = (zone_ids(trips, column) for column in ("PULocationID", "DOLocationID"))
    return _routes(pickup, dropoff)


def _routes(pickup: NDArray[np.int64], dropoff: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where((pickup >= 0) & (dropoff >= 0), pickup * MAX_ZONES + dropoff, -1)


def pickup_times(trips: Trips) -> pl.Series:
    """The pick-ups, New York's local time, in microseconds; null where one is missing.

    Raises:
        ValueError: they have a time zone: nothing says whether it is New York's.
    """
    values = trips["lpep_pickup_datetime"]
    if not isinstance(values, pl.Series):
        # pandas may count in seconds, which polars doesn't know
        values = pd.to_datetime(values, errors="coerce")
        zone = values.dt.tz
        values = pl.Series(values.dt.tz_localize(None).to_numpy().astype("datetime64[us]"))
    else:
        zone = getattr(values.dtype, "time_zone", None)
    if zone:
        raise ValueError(
            f"lpep_pickup_datetime is in {zone}: give New York's local time, without a time zone"
        )
    return values.cast(pl.Datetime("us"), strict=False)


def model_input(trips: pl.DataFrame) -> pd.DataFrame:
    """The raw trips as a deployed model gets them, in pandas.

    Zones as 64-bit integers: MLflow accepts smaller ones for these, but not the other way. One that
    is missing is -1.
    """
    zones = pl.col("PULocationID", "DOLocationID").fill_null(-1).cast(pl.Int64)
    trips = trips.with_columns(zones)
    return pd.DataFrame({column: trips[column].to_numpy() for column in TRIP_COLUMNS})


def _distances(trips: Trips) -> pl.DataFrame:
    """How many trips of each route have each distance, of those that can be true."""
    return (
        pl.DataFrame({"route": route_ids(trips), "miles": numbers(trips, "trip_distance")})
        .filter(pl.col("route") >= 0, pl.col("miles").is_between(0, MAX_MILES, closed="right"))
        .group_by("route", "miles")
        .agg(trips=pl.len())
    )


class TripFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Zones, distance, hour and weekday, for a tree model.

    `fit` learns each route's median distance. `transform` uses it where a trip's own distance
    can't be true (a meter that didn't run), so that such a trip still gets a sensible answer;
    on a route never seen it leaves the distance missing, which XGBoost handles. So it does with a
    zone that is missing, or that no trip of the training month had.
    """

    # columns of `transform` without which there is no answer: hour and weekday
    NEEDED = (3, 4)

    def fit(self, trips: Trips, y: object = None) -> Self:
        """Learn the routes' median distances (miles) from n trips; `y` is not used."""
        return self.fit_months([trips])

    def fit_months(self, months: Iterable[Trips]) -> Self:
        """Learn the same from some months' trips; only how often each distance occurs is kept."""
        distances = pl.concat(_distances(trips) for trips in months)
        trips, miles = pl.col("trips"), pl.col("miles")
        up_to, half = trips.cum_sum(), trips.sum() / 2
        lower, upper = (miles.filter(past).first() for past in (up_to >= half, up_to > half))
        medians = (
            distances.group_by("route", "miles")
            .agg(trips.sum())
            .sort("route", "miles")
            .group_by("route", maintain_order=True)
            .agg(miles=(lower + upper) / 2)
        )
        self.routes_ = medians["route"].to_numpy()
        self.route_miles_ = medians["miles"].to_numpy()
        return self

    def transform(self, trips: Trips) -> NDArray[np.float32]:
        """Turn n trips into numbers.

        Returns:
            Shape (n, 5), in the order of FEATURE_NAMES.
        """
        pickup, dropoff = (zone_ids(trips, column) for column in ("PULocationID", "DOLocationID"))
        miles = numbers(trips, "trip_distance")
        broken = ~((miles > 0) & (miles <= MAX_MILES))
        if broken.any():
            miles = np.where(broken, self._usual_miles(_routes(pickup, dropoff)), miles)
        times = pickup_times(trips)
        columns = (
            _where_seen(pickup, self.routes_ // MAX_ZONES),
            _where_seen(dropoff, self.routes_ % MAX_ZONES),
            miles,
            times.dt.hour().to_numpy() + times.dt.minute().to_numpy() / 60,
            times.dt.weekday().to_numpy(),
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


def _where_seen(zones: NDArray[np.int64], seen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Zones as numbers, NaN where they are not among `seen`."""
    known = np.zeros(MAX_ZONES + 1, dtype=bool)  # the last one stays False: it is zone -1
    known[seen] = True
    return np.where(known[zones], zones, np.nan)


class RouteAndDistance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The tutorial's two features, PU_DO and distance: shape (n, 2), the route as its number."""

    # columns of `transform` without which there is no answer: the distance
    NEEDED = (1,)

    def fit(self, trips: Trips, y: object = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, trips: Trips) -> NDArray[np.float64]:
        """Turn n trips into (route, miles), shape (n, 2)."""
        return np.column_stack([route_ids(trips), numbers(trips, "trip_distance")])

    def __sklearn_is_fitted__(self) -> bool:
        return True
