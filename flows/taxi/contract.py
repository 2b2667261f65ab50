"""What training needs from a month of raw trips, and what becomes of rows that don't have it.

Every row is accounted for: rows read = rows kept + rows quarantined.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import dataframely as dy
import polars as pl
from upath import UPath

from flows.platform.artifact_store import ArtifactStoreError, parquet_outline, read_parquet
from flows.platform.contract import ContractError, lossless, sort_rows
from flows.taxi.months import parse_month

logger = logging.getLogger(__name__)

DURATIONS = (1.0, 60.0)  # minutes, the first and the last: the tutorial course's filter


class Trips(dy.Schema):
    """A trip that training can use.

    A run may ask for other bounds of duration. Zones 1 to 265 are those of TLC's
    taxi_zone_lookup.csv (264 and 265 stand for unknown and outside the city). No taxi drives more
    than 100 miles in the hour that a trip may last: in 2023-01 and 2023-02 the longest plausible
    trip has 88 miles, and beyond 100 come 77 meter faults of up to 178,920.
    """

    lpep_pickup_datetime = dy.Datetime()  # New York's local time
    lpep_dropoff_datetime = dy.Datetime()
    PULocationID = dy.Int32(min=1, max=265)
    DOLocationID = dy.Int32(min=1, max=265)
    trip_distance = dy.Float64(min_exclusive=0, max=100)  # miles
    duration = dy.Float64(min=DURATIONS[0], max=DURATIONS[1])  # minutes


NEEDED = (
    "lpep_pickup_datetime",
    "lpep_dropoff_datetime",
    "PULocationID",
    "DOLocationID",
    "trip_distance",
)
"""The raw columns that `Trips` is made of."""


@dataclass(frozen=True)
class CheckedMonth:
    """A month's rows after the contract: `rows_read` = rows of `kept` + rows of `quarantined`.

    kept: the rows that satisfy `Trips`, with its columns.
    quarantined: the other rows as they came, with all their columns, and in the column `rule` the
        first rule that each breaks, e.g. "trip_distance > 100".
    counts: rows quarantined by rule, most frequent first; they add up to the rows of `quarantined`.
    course: the rows that the tutorial course's filter keeps, duration within bounds and nothing
        else, with the columns of `Trips`: zero and absurd distances and trips of other
        months are there; rows whose needed values are missing or unreadable can't be.
    """

    rows_read: int
    kept: pl.DataFrame
    quarantined: pl.DataFrame
    counts: dict[str, int]
    course: pl.DataFrame


# TLC's largest green month has 1.8 million rows of 20 columns. A file of a few megabytes may hold
# equal values that fill any memory, so the footer is asked first.
MAX_ROWS = 5_000_000
MAX_VALUES = 100_000_000


def read_month(path: UPath) -> pl.DataFrame:
    """Return a month's file as it is, all columns but nested and unreadable ones.

    Raises:
        ContractError: it is missing, forbidden, too large, or no whole Parquet file.
        ArtifactStoreError: the store doesn't answer; another try may succeed.
    """
    try:
        rows, schema = parquet_outline(path)
        if rows > MAX_ROWS or rows * len(schema) > MAX_VALUES:
            raise ContractError(
                f"{path}: {rows:,} rows of {len(schema)} columns, and a month has {MAX_ROWS:,} rows"
                f" or {MAX_VALUES:,} values at most: split the file by month"
            )
        flat = [name for name, dtype in schema.items() if not dtype.is_nested()]
        try:
            return read_parquet(path, flat)
        except NOT_PARQUET:
            return _readable(path, flat)
    except ArtifactStoreError as error:
        if isinstance(error.__cause__, FileNotFoundError | PermissionError):
            raise ContractError(str(error)) from error
        raise
    except pl.exceptions.DuplicateError as error:
        fault = str(error).splitlines()[0]
        raise ContractError(f"{path}: {fault}; keep one of them") from error
    except NOT_PARQUET as error:
        fault = str(error).splitlines()[0]
        raise ContractError(
            f"{path}: not a whole Parquet file ({fault}); fetch it again"
        ) from error


# on some broken files polars panics, which is no PolarsError
NOT_PARQUET = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def _readable(path: UPath, columns: Sequence[str]) -> pl.DataFrame:
    """Return the columns that can be read; all that `Trips` is made of must be."""
    frames = []
    for name in columns:
        try:
            frames.append(read_parquet(path, [name]))
        except NOT_PARQUET as error:
            if name in NEEDED:
                raise
            logger.warning("%s: column %s can't be read, and isn't needed: %s", path, name, error)
    return pl.concat(frames, how="horizontal")


def conform(raw: pl.DataFrame, file: str, needed: Sequence[str] = NEEDED) -> pl.DataFrame:
    """Return the needed columns of `raw` in the types of `Trips`, and two columns about each row.

    Casts only what loses nothing: ids from any number or from text, timestamps from any resolution
    or ISO text without an offset, distances from any number or text. A value that doesn't cast is
    null, and the column `unreadable` names its column; null and NaN stay null. `duration` is in
    minutes, and null where drop-offs aren't needed.

    Raises:
        ContractError: no rows, a needed column is missing, or its type can't hold such values.
    """
    missing = [name for name in needed if name not in raw.columns]
    if missing:
        raise ContractError(
            f"{file}: no column {', '.join(missing)} (it has {', '.join(raw.columns) or 'none'}); "
            "take the file as TLC publishes it, or rename the column"
        )
    if raw.is_empty():
        raise ContractError(f"{file}: no rows; fetch the month again, or choose another month")
    values = {name: _lossless(name, raw.schema[name], file) for name in needed}
    unreadable = (
        pl.when(_present(name, raw.schema[name]) & value.is_null()).then(pl.lit(name))
        for name, value in values.items()
    )
    ended = "lpep_dropoff_datetime" in needed
    minutes = _minutes("lpep_pickup_datetime", "lpep_dropoff_datetime") if ended else None
    return raw.select(
        **values, unreadable=pl.coalesce(*unreadable, pl.lit(None, pl.String))
    ).with_columns(duration=pl.lit(None, pl.Float64) if minutes is None else minutes)


def check(
    raw: pl.DataFrame,
    month: str,
    file: str,
    max_bad_share: float,
    durations: tuple[float, float] = DURATIONS,
) -> CheckedMonth:
    """Sort the rows of a raw month into those that training can use and those that it can't.

    Args:
        raw: the month's file, all columns.
        month: like 2023-01; pickups outside it are bad rows.
        file: the file's name, for messages.
        max_bad_share: the share of bad rows, 0 to 1, beyond which the month is refused.
        durations: the shortest and the longest trip that training can use, in minutes.

    Raises:
        ContractError: what `conform` refuses, or more bad rows than `max_bad_share`.
        ValueError: `month` is not a month.
    """
    trips = conform(raw, file).with_row_index("row")
    faults = trips.with_columns(fault=pl.col("unreadable") + " unreadable").drop("unreadable")
    good, bad, counts = sort_rows(_trips_of(month, durations), faults, file, max_bad_share)
    columns = Trips.column_names()
    return CheckedMonth(
        rows_read=raw.height,
        kept=good.select(columns),
        quarantined=raw[bad["row"]].with_columns(bad["rule"]),
        counts=counts,
        course=trips.select(columns).drop_nulls().filter(pl.col("duration").is_between(*durations)),
    )


def _trips_of(month: str, durations: tuple[float, float]) -> type[Trips]:
    """Return `Trips` of a month and of some durations only."""
    first, following = parse_month(month)

    class TripsOfMonth(Trips):
        lpep_pickup_datetime = dy.Datetime(min=first, max_exclusive=following)
        duration = dy.Float64(min=durations[0], max=durations[1])

    return TripsOfMonth


def _lossless(name: str, given: pl.DataType, file: str) -> pl.Expr:
    """Return the column in its type of `Trips`, null where that would change a value."""
    wanted = Trips.columns()[name].dtype
    value = pl.col(name)
    if isinstance(given, pl.Categorical | pl.Enum):
        value, given = value.cast(pl.String), pl.String()
    if isinstance(given, pl.Null):
        return value.cast(wanted)
    if isinstance(wanted, pl.Datetime):
        if isinstance(given, pl.String):
            text = value.str.strip_chars().str.replace("T", " ", literal=True)
            return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
        # with a zone it may be New York's time or UTC: nothing in the file says which
        if not isinstance(given, pl.Datetime) or given.time_zone:
            raise ContractError(
                _wrong_type(file, name, given, "local timestamps without a time zone")
            )
    elif not (isinstance(given, pl.String) or given.is_numeric()):
        raise ContractError(_wrong_type(file, name, given, "numbers"))
    return lossless(value, given, wanted)


def _wrong_type(file: str, name: str, given: pl.DataType, wanted: str) -> str:
    return (
        f"{file}: column {name} holds {given}, and training needs {wanted}; "
        "take the file as TLC publishes it, or convert the column"
    )


def _present(name: str, given: pl.DataType) -> pl.Expr:
    """Return where the raw column has a value; NaN is how pandas writes that it has none."""
    present = pl.col(name).is_not_null()
    return present & pl.col(name).is_not_nan() if given.is_float() else present


def _minutes(start: str, end: str) -> pl.Expr:
    return (pl.col(end) - pl.col(start)).dt.total_microseconds() / 60e6
