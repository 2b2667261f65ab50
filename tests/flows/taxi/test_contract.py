from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.platform.artifact_store import ArtifactStoreError, artifact_path, write
from flows.platform.contract import ContractError
from flows.taxi.contract import (
    NEEDED,
    CheckedMonth,
    Trips,
    check,
    conform,
    read_month,
)

PICKUP = datetime(2023, 1, 10, 8, 30)
FILE = "green_tripdata_2023-01.parquet"


def trip(minutes: float = 10, **changes: Any) -> dict[str, Any]:
    """A good raw trip with `changes`."""
    return {
        "lpep_pickup_datetime": PICKUP,
        "lpep_dropoff_datetime": PICKUP + timedelta(minutes=minutes),
        "PULocationID": 74,
        "DOLocationID": 75,
        "trip_distance": 1.5,
        **changes,
    }


def checked(*trips: dict[str, Any], max_bad_share: float = 1) -> CheckedMonth:
    return check(pl.DataFrame(trips), "2023-01", FILE, max_bad_share)


def rules(*trips: dict[str, Any]) -> list[str]:
    return checked(*trips).quarantined["rule"].to_list()


# --- rules ---------------------------------------------------------------------------------------


def test_a_good_trip_is_kept_with_its_minutes() -> None:
    month = checked(trip(12.5))
    assert month.kept.rows(named=True) == [trip(12.5, duration=12.5)]
    assert month.counts == {}
    assert month.quarantined.is_empty()


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (trip(lpep_pickup_datetime=None), "lpep_pickup_datetime missing"),
        (trip(lpep_dropoff_datetime=None), "lpep_dropoff_datetime missing"),
        (trip(PULocationID=None), "PULocationID missing"),
        (trip(DOLocationID=None), "DOLocationID missing"),
        (trip(trip_distance=None), "trip_distance missing"),
        (trip(trip_distance=float("nan")), "trip_distance missing"),
        (trip(trip_distance=float("inf")), "trip_distance unreadable"),
        (trip(PULocationID=74.5), "PULocationID unreadable"),
        (trip(PULocationID="Newark"), "PULocationID unreadable"),
        (trip(PULocationID=2**40), "PULocationID unreadable"),
        (trip(PULocationID=0), "PULocationID < 1"),
        (trip(DOLocationID=266), "DOLocationID > 265"),
        (trip(trip_distance=0.0), "trip_distance <= 0"),
        (trip(trip_distance=-1.5), "trip_distance <= 0"),
        (trip(trip_distance=100.01), "trip_distance > 100"),
        (trip(trip_distance=120098.84), "trip_distance > 100"),
        (trip(0.99), "duration < 1"),
        (trip(-5), "duration < 1"),
        (trip(60.02), "duration > 60"),
        (
            trip(lpep_pickup_datetime=datetime(2009, 1, 1), trip_distance=0.0),
            "lpep_pickup_datetime < 2023-01-01 00:00:00",
        ),
        (
            trip(lpep_pickup_datetime=datetime(2023, 2, 1)),
            "lpep_pickup_datetime >= 2023-02-01 00:00:00",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_quarantined_under_its_first_rule(
    row: dict[str, Any], rule: str
) -> None:
    month = checked(row)
    assert month.kept.is_empty()
    assert month.quarantined["rule"].to_list() == [rule]
    assert month.counts == {rule: 1}


@pytest.mark.parametrize(
    "row",
    [
        trip(1),
        trip(60),
        trip(trip_distance=0.01),
        trip(trip_distance=100.0),
        trip(PULocationID=1, DOLocationID=265),
        trip(
            lpep_pickup_datetime=datetime(2023, 1, 31, 23, 59, 59),
            lpep_dropoff_datetime=datetime(2023, 2, 1, 0, 10),
        ),
    ],
)
def test_a_row_at_a_bound_is_kept(row: dict[str, Any]) -> None:
    assert rules(row) == []


def test_other_bounds_of_duration_are_kept_to() -> None:
    trips = pl.DataFrame([trip(1), trip(5), trip(60), trip(90), trip(91)])
    month = check(trips, "2023-01", FILE, max_bad_share=1, durations=(5, 90))
    assert month.kept["duration"].to_list() == month.course["duration"].to_list() == [5, 60, 90]
    assert month.counts == {"duration < 5": 1, "duration > 90": 1}


def test_a_quarantined_row_is_as_it_came_with_every_column() -> None:
    raw = pl.DataFrame(
        [trip(PULocationID="74", fare=9.5), trip(PULocationID="x", fare=None)]
    ).with_columns(ehail_fee=None)
    month = check(raw, "2023-01", FILE, max_bad_share=1)
    assert month.quarantined.drop("rule").equals(raw[1:])


def test_counts_come_most_frequent_first() -> None:
    month = checked(trip(0), trip(trip_distance=0.0), trip(90), trip(trip_distance=0.0))
    assert list(month.counts.items()) == [
        ("trip_distance <= 0", 2),
        ("duration < 1", 1),
        ("duration > 60", 1),
    ]


# --- the course's filter -------------------------------------------------------------------------


def test_the_courses_rows_are_those_of_1_to_60_minutes_whatever_else_is_wrong() -> None:
    odd = [
        trip(1),
        trip(60),
        trip(trip_distance=0.0),
        trip(trip_distance=120098.84),
        trip(PULocationID=999),
        trip(
            lpep_pickup_datetime=datetime(2009, 1, 1),
            lpep_dropoff_datetime=datetime(2009, 1, 1, 0, 20),
        ),
    ]
    left_out = [
        trip(0.99),
        trip(60.02),
        trip(-5),
        trip(DOLocationID=None),
        trip(trip_distance=None),
    ]
    course = checked(*odd, *left_out).course
    assert course.columns == Trips.column_names()
    assert course.select(NEEDED).rows(named=True) == odd


# --- casts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([74, 75], dtype=pl.Int64),
        pl.Series([74, 75], dtype=pl.UInt8),
        pl.Series([74.0, 75.0]),
        pl.Series([74.0, 75.0], dtype=pl.Float32),
        pl.Series(["74", "75"]),
        pl.Series([" 74", "75.0"]),
        pl.Series(["74", "75"], dtype=pl.Categorical),
        pl.Series(["74", "75"]).cast(pl.Enum(["74", "75"])),
    ],
    ids=lambda ids: f"{ids.dtype}",
)
def test_zone_ids_are_cast_from_any_type_that_holds_them(ids: pl.Series) -> None:
    month = check(pl.DataFrame([trip(), trip()]).with_columns(PULocationID=ids), "2023-01", FILE, 0)
    assert month.kept["PULocationID"].to_list() == [74, 75]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_timestamps_are_cast_from_any_resolution(unit: Any) -> None:
    raw = pl.DataFrame([trip()]).cast({pl.Datetime: pl.Datetime(unit)})
    assert check(raw, "2023-01", FILE, 0).kept.rows(named=True) == [trip(duration=10)]


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.000", " %F %T%.6f"]
)
def test_timestamps_are_read_from_iso_text(form: str) -> None:
    raw = pl.DataFrame([trip()]).with_columns(pl.col(pl.Datetime).dt.strftime(form))
    assert check(raw, "2023-01", FILE, 0).kept.rows(named=True) == [trip(duration=10)]


@pytest.mark.parametrize("distance", [2, "2", "2.00", " 2.0"])
def test_distances_are_cast_from_whole_numbers_and_text(distance: object) -> None:
    assert checked(trip(trip_distance=distance)).kept["trip_distance"].to_list() == [2.0]


def test_a_timestamp_finer_than_a_microsecond_is_not_rounded_but_unreadable() -> None:
    raw = pl.DataFrame([trip()]).with_columns(
        pl.col("lpep_pickup_datetime").cast(pl.Datetime("ns")) + pl.duration(nanoseconds=1)
    )
    assert check(raw, "2023-01", FILE, 1).counts == {"lpep_pickup_datetime unreadable": 1}


def test_one_unreadable_value_does_not_spoil_its_neighbours() -> None:
    pickups = ["2023-01-10 08:30:00", "yesterday", "2023-01-10T08:30:00"]
    month = checked(*(trip(lpep_pickup_datetime=pickup) for pickup in pickups))
    assert month.counts == {"lpep_pickup_datetime unreadable": 1}
    assert month.kept.height == 2


def test_columns_without_any_value_are_missing_in_every_row() -> None:
    empty = trip(**dict.fromkeys(NEEDED))
    assert checked(empty, empty).counts == {"lpep_pickup_datetime missing": 2}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("lpep_pickup_datetime", [1673339400]),
        ("lpep_pickup_datetime", [date(2023, 1, 10)]),
        ("lpep_pickup_datetime", pl.Series([PICKUP]).dt.replace_time_zone("UTC")),
        ("PULocationID", [True]),
        ("trip_distance", [[1.5]]),
    ],
)
def test_a_column_of_a_type_that_cannot_be_meant_is_refused(column: str, values: Any) -> None:
    raw = pl.DataFrame([trip()]).with_columns(pl.Series(column, values))
    with pytest.raises(ContractError, match=rf"{FILE}: column {column} holds .*, and training"):
        conform(raw, FILE)


# --- months that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize("column", NEEDED)
def test_a_missing_column_is_named_with_those_there_are(column: str) -> None:
    raw = pl.DataFrame([trip()]).drop(column)
    with pytest.raises(ContractError, match=rf"^{FILE}: no column {column} \(it has .*\); take"):
        conform(raw, FILE)


def test_an_empty_month_is_refused_by_its_name() -> None:
    with pytest.raises(ContractError, match=f"^{FILE}: no rows; fetch the month again"):
        check(pl.DataFrame([trip()]).clear(), "2023-01", FILE, 1)


def test_more_bad_rows_than_the_limit_stop_with_file_rules_and_counts() -> None:
    rows = [trip(0), trip(0), trip(trip_distance=0.0), *[trip()] * 7]
    assert checked(*rows, max_bad_share=0.3).kept.height == 7
    with pytest.raises(ContractError) as error:
        checked(*rows, max_bad_share=0.29)
    assert str(error.value) == (
        "green_tripdata_2023-01.parquet: 3 of 10 rows can't be used (30.0%, the limit is 29.0%): "
        "duration < 1 (2), trip_distance <= 0 (1); "
        "correct the file, or raise the limit if it is right as it is"
    )


@pytest.mark.parametrize(
    "content", [b"", b"<html>Forbidden</html>", b"PAR1" + b"x" * 40 + b"PAR1", None]
)
def test_a_file_that_is_no_parquet_is_refused_by_its_name(
    content: bytes | None, tmp_path: Path
) -> None:
    if content is None:  # cut short
        pl.DataFrame([trip()]).write_parquet(tmp_path / FILE)
        content = (tmp_path / FILE).read_bytes()[:-20]
    path = artifact_path(str(tmp_path), FILE)
    write(path, content)
    with pytest.raises(ContractError, match=rf"{FILE}: not a whole Parquet file \(.*\); fetch it"):
        read_month(path)


def test_a_file_on_which_polars_panics_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("called `Result::unwrap()`")

    monkeypatch.setattr(pl, "scan_parquet", panic)
    with pytest.raises(ContractError, match="not a whole Parquet file"):
        read_month(artifact_path(str(tmp_path), FILE))


@pytest.mark.parametrize("columns", [1, 6, 400])
def test_a_small_file_of_too_many_equal_values_is_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    rows = {1: 5_000_001, 6: 5_000_001, 400: 260_000}[columns]
    path = tmp_path / FILE
    same = pl.repeat(1, rows, dtype=pl.UInt8, eager=True)
    pl.DataFrame({f"c{n}": same for n in range(columns)}).write_parquet(path)
    assert path.stat().st_size < 4_000_000
    monkeypatch.setattr(pl, "read_parquet", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ContractError, match=rf"{FILE}: {rows:,} rows of {columns} col.*split"):
        read_month(artifact_path(str(tmp_path), FILE))


def written_by_arrow(folder: Path, *columns: tuple[str, Any]) -> Path:
    """A month with these columns beside the good ones: Polars can't write all that others can."""
    good = pl.DataFrame([trip(), trip(20)])
    table = pa.table(
        [*(pa.array(good[name].to_list()) for name in NEEDED), *(values for _, values in columns)],
        names=[*NEEDED, *(name for name, _ in columns)],
    )
    pq.write_table(table, folder / FILE, use_dictionary=False)
    return folder / FILE


def test_an_unreadable_column_that_nobody_needs_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written_by_arrow(
        tmp_path,
        ("fee", pa.array(["x" * 50] * 2)),
        ("huge", pa.array([Decimal(10) ** 60, None], pa.decimal256(70, 0))),
        ("stops", pa.array([[1, 2], []])),
        ("tip", pa.array([1.0, 2.0])),
    )
    start = pq.read_metadata(path).row_group(0).column(len(NEEDED)).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    month = read_month(artifact_path(str(tmp_path), FILE))
    assert month.columns == [*NEEDED, "tip"]
    assert check(month, "2023-01", FILE, 0).kept.height == 2
    assert "column fee can't be read, and isn't needed" in caplog.text


@pytest.mark.parametrize("column", range(len(NEEDED)))
def test_an_unreadable_column_that_is_needed_is_a_broken_file(tmp_path: Path, column: int) -> None:
    path = written_by_arrow(tmp_path)
    start = pq.read_metadata(path).row_group(0).column(column).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(ContractError, match=f"{FILE}: not a whole Parquet file"):
        read_month(artifact_path(str(tmp_path), FILE))


@pytest.mark.parametrize("name", ["tip", "trip_distance"])
def test_a_column_twice_is_said_to_be(tmp_path: Path, name: str) -> None:
    written_by_arrow(tmp_path, (name, pa.array([1.0, 2.0])), (name, pa.array([1.0, 2.0])))
    with pytest.raises(ContractError, match=rf"{FILE}: .*'{name}'.*more than one.*keep one of"):
        read_month(artifact_path(str(tmp_path), FILE))


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=rf"cannot read .*{FILE}: there is no such file"):
        read_month(artifact_path(str(tmp_path), FILE))


def test_a_store_that_does_not_answer_is_no_fault_of_the_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(pl, "scan_parquet", unreachable)
    with pytest.raises(ArtifactStoreError):
        read_month(artifact_path(str(tmp_path), FILE))


# --- no row vanishes -----------------------------------------------------------------------------

moments = st.datetimes(datetime(2022, 12, 31), datetime(2023, 2, 2)).map(
    lambda moment: moment.replace(microsecond=0)
)
zones = st.integers(-3, 300) | st.sampled_from([0, 1, 265, 266])
numbers = st.floats(-1, 150) | st.sampled_from([0.0, 100.0, 178919.98, float("nan"), float("inf")])
raw_rows = st.fixed_dictionaries(
    {
        "lpep_pickup_datetime": st.none() | moments,
        "minutes": st.none() | st.integers(-100, 5000).map(lambda seconds: seconds / 60),
        "PULocationID": st.none() | zones | st.sampled_from([74.5, "74", "74.0", "", "Newark"]),
        "DOLocationID": st.none() | zones,
        "trip_distance": st.none() | numbers | st.sampled_from(["1.5", "far"]),
    }
)


def usable(row: dict[str, Any]) -> bool:
    """What the contract says of a row, told in plain Python."""
    try:
        if any(row[name] is None for name in NEEDED):
            return False
        pickup, zone = float(row["PULocationID"]), float(row["DOLocationID"])
        miles = float(row["trip_distance"])
    except ValueError:
        return False
    length = (row["lpep_dropoff_datetime"] - row["lpep_pickup_datetime"]).total_seconds()
    return (
        datetime(2023, 1, 1) <= row["lpep_pickup_datetime"] < datetime(2023, 2, 1)
        and pickup.is_integer()
        and 1 <= pickup <= 265
        and 1 <= zone <= 265
        and 0 < miles <= 100
        and 60 <= length <= 3600
    )


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(raw_rows, min_size=1, max_size=12), as_text=st.booleans())
def test_every_row_is_kept_or_quarantined_and_counted_once(
    rows: list[dict[str, Any]], as_text: bool
) -> None:
    for number, row in enumerate(rows):
        start, minutes = row["lpep_pickup_datetime"], row.pop("minutes")
        end = None if start is None or minutes is None else start + timedelta(minutes=minutes)
        row |= {"lpep_dropoff_datetime": end, "number": number}
    # a column has one type: with any text in it, all of it is text
    dtypes = {
        name: pl.String
        for name in ("PULocationID", "trip_distance")
        if as_text or any(isinstance(row[name], str) for row in rows)
    }
    for name in dtypes:
        for row in rows:
            row[name] = None if row[name] is None else str(row[name])
    raw = pl.DataFrame(rows, schema_overrides=dtypes, strict=False, infer_schema_length=None)

    month = check(raw, "2023-01", FILE, 1)

    assert month.rows_read == len(rows) == month.kept.height + month.quarantined.height
    assert sum(month.counts.values()) == month.quarantined.height
    assert month.counts == Counter(month.quarantined["rule"])
    bad = [number for number, row in enumerate(rows) if not usable(row)]
    assert month.quarantined["number"].to_list() == bad
    Trips.validate(month.kept)


def test_real_months_keep_every_row_in_sight(tlc_data: Path) -> None:
    course_rows = {"2023-01": 65_946, "2023-02": 62_574}
    for month, rows in course_rows.items():
        path = artifact_path(str(tlc_data), f"green_tripdata_{month}.parquet")
        raw = read_month(path)
        result = check(raw, month, path.name, max_bad_share=0.1)
        assert result.course.height == rows
        assert result.rows_read == raw.height == result.kept.height + result.quarantined.height
        assert sum(result.counts.values()) == result.quarantined.height
        assert result.quarantined.drop("rule").schema == raw.schema
        Trips.validate(result.kept)
