"""Green-taxi months made up from a seed: TLC's raw schema, its signal and its dirt, no network.

The shapes (popular zones, trip lengths, busy hours, speeds, shares of dirt) follow TLC's months
2023-01 and 2023-02; no row of them is copied.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.taxi.months import parse_month

Indices = NDArray[np.int64]
Values = NDArray[np.float64]

ROWS = 40_000
"""About two thirds of one of TLC's months."""

# TLC's columns of 2023-01, in order; ehail_fee has no value in any row, hence no type either
SCHEMA = pl.Schema(
    {
        "VendorID": pl.Int64(),
        "lpep_pickup_datetime": pl.Datetime("us"),
        "lpep_dropoff_datetime": pl.Datetime("us"),
        "store_and_fwd_flag": pl.String(),
        "RatecodeID": pl.Float64(),
        "PULocationID": pl.Int64(),
        "DOLocationID": pl.Int64(),
        "passenger_count": pl.Float64(),
        "trip_distance": pl.Float64(),
        "fare_amount": pl.Float64(),
        "extra": pl.Float64(),
        "mta_tax": pl.Float64(),
        "tip_amount": pl.Float64(),
        "tolls_amount": pl.Float64(),
        "ehail_fee": pl.Null(),
        "improvement_surcharge": pl.Float64(),
        "total_amount": pl.Float64(),
        "payment_type": pl.Float64(),
        "trip_type": pl.Float64(),
        "congestion_surcharge": pl.Float64(),
    }
)

# 6 to 7 % of TLC's rows lack all of what the card terminal in the taxi records
NO_CARD = 0.065
CARD_COLUMNS = (
    "store_and_fwd_flag",
    "RatecodeID",
    "passenger_count",
    "payment_type",
    "trip_type",
    "congestion_surcharge",
)

# Shares of the rows. TLC's months have a few rows of the rare kinds, and so has every month here.
DIRT = {
    "no_distance": 0.031,  # a trip of minutes, 0 miles
    "no_trip": 0.022,  # seconds, mostly 0 miles
    "meter_left_on": 0.003,  # almost a day
    "over_an_hour": 0.006,
    "other_month": 0.0003,
    "wrong_year": 0.0001,
    "ends_before_it_starts": 0.0002,
    "no_zone": 0.0001,  # null where training needs a value
    "no_dropoff_time": 0.0001,
    "absurd_distance": 0.0006,  # hundreds to more than 100,000 miles
}

CHARGES = (
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "improvement_surcharge",
    "congestion_surcharge",
)
PASSENGERS = {1.0: 0.85, 2.0: 0.08, 3.0: 0.02, 5.0: 0.03, 6.0: 0.02}

ZONES = 265
# Pickups by hour from midnight, relative to each other, and traffic's speed in miles an hour:
# on working days, at weekends
# fmt: off
PICKUPS = np.array([
    [11, 8, 6, 5, 4, 5, 10, 28, 36, 37, 36, 37,
     38, 40, 45, 53, 55, 54, 54, 43, 32, 23, 18, 13],
    [26, 21, 16, 13, 9, 6, 6, 11, 18, 26, 32, 35,
     37, 38, 38, 39, 39, 40, 42, 38, 34, 32, 31, 27],
])
SPEED = np.array([
    [17, 18, 19, 20, 20, 19, 15, 11, 8, 9, 10, 11,
     11, 10, 9, 7, 7, 7, 8, 11, 14, 15, 16, 17],
    [16, 16, 17, 18, 19, 19, 19, 18, 16, 14, 13, 12,
     12, 12, 12, 12, 12, 12, 12, 13, 13, 14, 15, 15],
])
# fmt: on


def synthetic_month(month: str, rows: int = ROWS, seed: int = 42) -> pl.DataFrame:
    """Make up a raw month: the same month, rows and seed give the same frame on any machine.

    The city (zones, their places, popularity and traffic) is the same in every month of a seed;
    the trips, the dirt and a slight seasonal change of speed differ.

    Args:
        month: like 2023-01.
        rows: number of trips; at least 100, so that every kind of dirt leaves most of them clean.
        seed: of the city and of its trips.

    Returns:
        `rows` trips with TLC's raw schema, in the order of their pickup but for the dirt.

    Raises:
        ValueError: `month` is not a month, or `rows` too few.
    """
    first, following = parse_month(month)
    if rows < 100:
        raise ValueError(f"a synthetic month needs at least 100 rows, not {rows}")
    rng = np.random.Generator(np.random.PCG64([seed, first.year, first.month]))
    pickup, dropoff, route_miles, pace = _routes(rows, seed, rng)

    days = (following - first).days
    weekend = ((first.weekday() + np.arange(days)) % 7 >= 5).astype(np.int64)
    hourly = PICKUPS[weekend].ravel() / PICKUPS[weekend].sum()
    seconds = np.sort(rng.choice(days * 24, rows, p=hourly) * 3600 + rng.integers(0, 3600, rows))
    day, hour = np.divmod(seconds // 3600, 24)
    miles = np.maximum(route_miles * np.exp(rng.normal(0, 0.12, rows)), 0.05)
    season = 1 + 0.03 * np.cos(2 * np.pi * first.month / 12) + rng.normal(0, 0.01)
    speed = SPEED[weekend[day], hour] * season * (0.9 + 0.07 * miles)
    ride = 90 + miles / speed * 3600 * pace * np.exp(rng.normal(0, 0.3, rows))  # seconds

    trips = pl.DataFrame(
        {
            "lpep_pickup_datetime": seconds + _epoch(first),
            "ride": ride.round().astype(np.int64),
            "PULocationID": pickup + 1,
            "DOLocationID": dropoff + 1,
            "trip_distance": miles.round(2),
        }
    )
    return _soiled(_charged(trips, rng), first, rng)


def _routes(
    rows: int, seed: int, rng: np.random.Generator
) -> tuple[Indices, Indices, Values, Values]:
    """Return for each trip its zones (from 0), its route's miles and how slow its route is."""
    city = np.random.Generator(np.random.PCG64(seed))
    # on a plane of 9 by 13 miles; popularity falls with the rank, as in TLC's zones
    place = city.uniform(0, [9, 13], size=(ZONES, 2))
    popularity = 1 / (city.permutation(ZONES) + 3) ** 1.25
    popularity /= popularity.sum()
    traffic = np.exp(city.normal(0, 0.2, ZONES))
    detour = city.uniform(1, 1.4, (ZONES, ZONES))
    apart = np.abs(place[:, None] - place).sum(axis=2) * detour + city.uniform(0.4, 1.2, ZONES)

    pickup = rng.choice(ZONES, rows, p=popularity)
    # nearby and popular zones draw most; one row of cumulative shares for each zone of departure,
    # the zone's number added so that one sorted array serves them all
    share = np.cumsum(popularity * np.exp(-apart / 1.2) * (1 - 0.75 * np.eye(ZONES)), axis=1)
    share = share / share[:, -1:] + np.arange(ZONES)[:, None]
    drawn = np.searchsorted(share.ravel(), pickup + rng.uniform(0, 1, rows), side="right")
    dropoff = np.minimum(drawn - pickup * ZONES, ZONES - 1)
    pace = np.sqrt(traffic[pickup] * traffic[dropoff])
    return pickup, dropoff, apart[pickup, dropoff], pace


def _charged(trips: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the trips with a driver's other columns, about as TLC's rows have them."""
    rows = trips.height
    card = rng.uniform(size=rows) < 0.62
    hailed = rng.uniform(size=rows) < 0.98
    hour = pl.col("lpep_pickup_datetime") // 3600 % 24
    return trips.with_columns(
        VendorID=pl.Series(np.where(rng.uniform(size=rows) < 0.86, 2, 1)),
        store_and_fwd_flag=pl.Series(np.where(rng.uniform(size=rows) < 0.005, "Y", "N")),
        RatecodeID=pl.Series(np.where(hailed, 1.0, 5.0)),
        passenger_count=pl.Series(rng.choice(list(PASSENGERS), rows, p=list(PASSENGERS.values()))),
        fare_amount=(3 + 2.5 * pl.col("trip_distance") + 0.35 * pl.col("ride") / 60).round(1),
        extra=pl.when(hour.is_between(16, 19)).then(2.5).when(hour >= 20).then(1).otherwise(0),
        mta_tax=pl.lit(0.5),
        tip_amount=pl.Series(np.where(card, rng.gamma(2.0, 1.7, rows).round(2), 0.0)),
        tolls_amount=pl.Series(np.where(rng.uniform(size=rows) < 0.025, 6.55, 0.0)),
        ehail_fee=pl.lit(None),
        improvement_surcharge=pl.lit(1.0),
        payment_type=pl.Series(np.where(card, 1.0, 2.0)),
        trip_type=pl.Series(np.where(hailed, 1.0, 2.0)),
        congestion_surcharge=pl.Series(np.where(rng.uniform(size=rows) < 0.26, 2.75, 0.0)),
    ).with_columns(total_amount=pl.sum_horizontal(CHARGES).round(2))


def _soiled(trips: pl.DataFrame, first: datetime, rng: np.random.Generator) -> pl.DataFrame:
    """Return the trips as TLC would publish them: with `DIRT`, and in `SCHEMA`."""
    rows = trips.height
    order = rng.permutation(rows)
    ends = np.cumsum([max(1, round(share * rows)) for share in DIRT.values()])
    dirty = dict(zip(DIRT, np.split(order, ends), strict=False))  # what is left over stays clean

    def draw(kind: str, low: int, high: int) -> Indices:
        return rng.integers(low, high, len(dirty[kind]))

    pickup, ride = (trips[name].to_numpy().copy() for name in ("lpep_pickup_datetime", "ride"))
    miles = trips["trip_distance"].to_numpy().copy()
    month_start = _epoch(first)
    miles[dirty["no_distance"]] = 0
    ride[dirty["no_trip"]] = draw("no_trip", 0, 59)
    miles[dirty["no_trip"]] *= draw("no_trip", 0, 3) == 0
    ride[dirty["meter_left_on"]] = 86_400 - draw("meter_left_on", 0, 7_200)
    ride[dirty["over_an_hour"]] = draw("over_an_hour", 3_700, 8_000)
    pickup[dirty["other_month"]] = month_start - draw("other_month", 1, 7 * 86_400)
    pickup[dirty["wrong_year"]] = _epoch(datetime(2009, 1, 1)) + draw("wrong_year", -7_200, 86_400)
    ride[dirty["ends_before_it_starts"]] *= -1
    miles[dirty["absurd_distance"]] = (10 ** (draw("absurd_distance", 210, 525) / 100)).round(2)

    # TLC's absurd distances stand in rows without a card terminal, so these rows start there
    no_card = order[ends[-1] - len(dirty["absurd_distance"]) :][: round(NO_CARD * rows)]
    soiled = trips.with_columns(
        lpep_pickup_datetime=pl.Series(pickup * 1_000_000).cast(pl.Datetime("us")),
        lpep_dropoff_datetime=pl.Series((pickup + ride) * 1_000_000).cast(pl.Datetime("us")),
        trip_distance=pl.Series(miles),
    ).with_columns(
        _without("DOLocationID", dirty["no_zone"]),
        _without("lpep_dropoff_datetime", dirty["no_dropoff_time"]),
        *(_without(name, no_card) for name in CARD_COLUMNS),
    )
    return soiled.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def _without(name: str, rows: Indices) -> pl.Expr:
    """Return the column with nulls at these rows."""
    return pl.when(~pl.int_range(pl.len()).is_in(rows)).then(pl.col(name)).alias(name)


def _epoch(moment: datetime) -> int:
    """Return a local time as seconds; without a time zone, as in TLC's files."""
    return (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)
