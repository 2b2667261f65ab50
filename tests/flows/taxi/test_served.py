"""Trips that the served model is asked about: answered as the batch scorer answers them."""

import json
from typing import Any

import polars as pl
import pytest

from flows.lifecycle.scoring import answered_by, answers
from flows.lifecycle.serving_models import use_one_thread
from flows.lifecycle.serving_rows import JSON, Limits, RequestError, RowReader
from flows.taxi.contract import conform
from flows.taxi.features import TRIP_COLUMNS
from flows.taxi.models import dumps, loads
from flows.taxi.served import Trip
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from tests.flows.taxi.trained import Trained

READER = RowReader(Trip, Limits())
TRIP = READER.example


def read(*trips: dict[str, Any]) -> pl.DataFrame:
    return READER.read(json.dumps({"rows": trips}).encode(), JSON)


def raw_trips() -> pl.DataFrame:
    """As scoring has them: with zones and distances that are missing or can't be true."""
    trips = conform(synthetic_month("2023-02", rows=2_000), "it")
    odd = pl.DataFrame(
        {
            "lpep_pickup_datetime": [None, *trips["lpep_pickup_datetime"][:4]],
            "PULocationID": [1, None, -7, 2**31 - 1, 74],
            "DOLocationID": [1, 2, 999, None, 41],
            "trip_distance": [1.0, None, 0.0, -3.5, 1e308],
        },
        schema_overrides=trips.select(TRIP_COLUMNS).schema,
    )
    return pl.concat([trips.filter(pl.col("unreadable").is_null()).select(TRIP_COLUMNS), odd])


@pytest.mark.parametrize("kind", ["boosted", "baseline"])
def test_answers_are_the_batch_scorers_to_the_last_bit(kind: str, trained: Trained) -> None:
    of_scoring = getattr(trained, kind)
    served = loads(dumps(of_scoring))
    use_one_thread(served)
    trips = raw_trips()
    as_sent = [json.loads(json.dumps(trip, default=str)) for trip in trips.to_dicts()]
    expected, unanswered = answered_by(of_scoring, SPEC, trips)
    found, known = answers(served, SPEC, read(*as_sent))
    assert 0 < len(unanswered) == (~known).sum()
    together = found["prediction"].filter(known)
    assert together.to_numpy().tobytes() == expected["prediction"].to_numpy().tobytes()
    # and a trip alone as among others
    for place in (*range(5), *range(len(trips) - 5, len(trips))):
        alone, _ = answers(served, SPEC, read(as_sent[place]))
        assert alone["prediction"].equals(found["prediction"][place : place + 1])


@pytest.mark.parametrize(
    ("trip", "told"),
    [
        ({"PULocationID": 74.5}, "rows[0].PULocationID: Input should be a valid integer"),
        ({"PULocationID": "74"}, "rows[0].PULocationID: Input should be a valid integer"),
        ({"DOLocationID": 2**31}, "rows[0].DOLocationID: Input should be less than or equal"),
        ({"trip_distance": "1.9"}, "rows[0].trip_distance: Input should be a valid number"),
        ({"trip_distance": float("nan")}, "rows[0].trip_distance: Input should be a finite number"),
        ({"lpep_pickup_datetime": "2026-05-04T08:30:00Z"}, "should not have timezone info"),
        ({"lpep_pickup_datetime": 1777883400}, "rows[0].lpep_pickup_datetime: Input should be"),
        ({"lpep_pickup_datetime": "monday"}, "rows[0].lpep_pickup_datetime: Input should be"),
    ],
)
def test_what_scoring_would_quarantine_is_refused(trip: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(TRIP | trip)
    assert told in refused.value.detail


def test_a_whole_record_of_tlc_may_be_sent_and_a_column_too_few_may_not() -> None:
    assert read(TRIP | {"fare_amount": 9.5}).columns == list(TRIP_COLUMNS)
    with pytest.raises(RequestError, match=r"rows\[0\]\.DOLocationID: Field required"):
        read({name: value for name, value in TRIP.items() if name != "DOLocationID"})
