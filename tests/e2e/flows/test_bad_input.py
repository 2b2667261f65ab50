"""What a user is told when a run can't go on: each message names what is wrong and what to do."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import polars as pl
import pytest

from flows.platform.task_options import RETRIED
from flows.taxi import preprocess, source, train
from flows.taxi.synthetic import synthetic_month
from tests.e2e.flows.whole_runs import Place, ended, put_month, run

pytestmark = pytest.mark.server

JANUARY, FEBRUARY = "2023-01", "2023-02"
FILE = r"green_tripdata_2023-01\.parquet"
# A task that is tried again waits for so long that the test notices.
RETRY_SECONDS = 120

Parameters = dict[str, object]


@pytest.fixture
def months(tmp_path: Path) -> Path:
    """A folder with two good months; a case spoils the first."""
    folder = tmp_path / "months"
    folder.mkdir()
    for month in (JANUARY, FEBRUARY):
        put_month(folder, month)
    return folder


@pytest.fixture(autouse=True)
def retries_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (train.start_experiment, preprocess.prepare_month):
        monkeypatch.setattr(task, "retry_delay_seconds", [RETRY_SECONDS] * 3)
    monkeypatch.setattr(source, "FIRST_WAIT", 0.001)  # between attempts of one download


def failed(**parameters: object) -> str:
    """The message of a run that fails, is told so at once, and not tried again."""
    start = time.monotonic()
    name, message = ended(run(**{"train_month": JANUARY, "num_trials": 1} | parameters))
    assert (name, time.monotonic() - start < RETRY_SECONDS) == ("Failed", True), message
    return message


# --- files ---------------------------------------------------------------------------------------

SPOILED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "missing column": (
        lambda trips: trips.drop("trip_distance"),
        rf"{FILE}: no column trip_distance \(it has VendorID, .*\).* or rename the column",
    ),
    "two missing columns": (
        lambda trips: trips.rename({"PULocationID": "pickup", "DOLocationID": "dropoff"}),
        rf"{FILE}: no column PULocationID, DOLocationID \(it has .*pickup",
    ),
    "empty month": (
        lambda trips: trips.clear(),
        rf"{FILE}: no rows; fetch the month again, or choose another month",
    ),
    "too many bad rows": (
        lambda trips: trips.with_columns(trip_distance=0.0),
        rf"{FILE}: 300 of 300 rows can't be used \(100.0%, the limit is 20.0%\): "
        r".*trip_distance <= 0.* \(\d+\).*; correct the file, or raise the limit",
    ),
    "another month's trips": (
        lambda trips: trips.with_columns(
            pl.col("lpep_pickup_datetime", "lpep_dropoff_datetime").dt.offset_by("1mo")
        ),
        rf"{FILE}: .* of 300 rows can't be used .*lpep_pickup_datetime >= 2023-02-01 00:00:00 \(",
    ),
    "wrong type": (
        lambda trips: trips.with_columns(PULocationID=pl.lit(date(2023, 1, 1))),
        rf"{FILE}: column PULocationID holds Date, and training needs numbers; .*convert",
    ),
    "timestamps with a zone": (
        lambda trips: trips.with_columns(
            pl.col("lpep_pickup_datetime").dt.replace_time_zone("UTC")
        ),
        rf"{FILE}: column lpep_pickup_datetime holds Datetime.*UTC.*local timestamps without a",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED.keys())
def test_a_month_that_cannot_be_used_is_named_with_the_fault_and_what_to_do(
    spoil: Callable[[pl.DataFrame], pl.DataFrame],
    said: str,
    here: Place,
    months: Path,
) -> None:
    put_month(months, JANUARY, spoil(synthetic_month(JANUARY, rows=300)))
    message = failed(data=str(months))
    assert re.search(said, message), message
    assert here.registered() == []


def test_a_file_that_is_no_parquet_is_named(here: Place, months: Path) -> None:
    (months / f"green_tripdata_{JANUARY}.parquet").write_bytes(b"PAR1 and no more")
    message = failed(data=str(months))
    assert f"green_tripdata_{JANUARY}.parquet: not a whole Parquet file" in message
    assert message.endswith("; fetch it again")


def test_a_validation_month_that_cannot_be_used_is_named_too(here: Place, months: Path) -> None:
    put_month(months, FEBRUARY, synthetic_month(FEBRUARY, rows=300).clear())
    assert f"green_tripdata_{FEBRUARY}.parquet: no rows" in failed(data=str(months))


def test_a_month_that_a_folder_lacks_is_named_with_those_it_has(here: Place, months: Path) -> None:
    message = failed(data=str(months), train_month=FEBRUARY)
    assert f"no green_tripdata_2023-03.parquet in {months}; it has 2023-01, 2023-02" in message


def test_a_folder_that_is_not_there_is_named(here: Place, tmp_path: Path) -> None:
    message = failed(data=str(tmp_path / "absent"))
    assert f"there is no folder {tmp_path / 'absent'}; give synthetic, tlc, or one that" in message


def test_a_source_of_an_unknown_kind_is_refused_with_those_there_are(here: Place) -> None:
    message = failed(data="gs://bucket/trips")
    assert "data=gs://bucket/trips: give synthetic, tlc, a folder, an s3:// prefix" in message


def test_a_bucket_that_is_not_there_is_named(here: Place, s3: str) -> None:
    message = failed(data="s3://trainyard-of-nobody/raw")
    assert "no green_tripdata_2023-01.parquet" in message
    assert "s3://trainyard-of-nobody/raw" in message


# --- parameters ----------------------------------------------------------------------------------

PARAMETERS: dict[str, tuple[Parameters, str]] = {
    "not a month": ({"train_month": "2023-1"}, "train_month: Value error, '2023-1' is not a month"),
    "no such month": (
        {"train_month": "2023-13"},
        "'2023-13' is not a month: write it like 2023-01",
    ),
    "a day": ({"train_month": "2023-01-01"}, "'2023-01-01' is not a month"),
    "not a validation month": (
        {"valid_month": "02"},
        "valid_month: Value error, '02' is not a month",
    ),
    "a variable of a shell": ({"data": "${DATA}"}, "data: String should match pattern"),
    "too many trials": ({"num_trials": 10**6}, "num_trials: Input should be less than or equal"),
    "negative seed": ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
    "seed too large": ({"seed": 2**32}, "seed: Input should be less than 4294967296"),
    "a secret in the address": ({"data": "https://me:s3cret@host/a"}, "has a user, a password"),
    "validated before training": (
        {"train_month": "2023-03", "valid_month": "2023-02"},
        "valid_month 2023-02 is not after train_month 2023-03: a model is validated on trips later",
    ),
    "validated on the training month": (
        {"train_month": "2023-03", "valid_month": "2023-03"},
        "valid_month 2023-03 is not after train_month 2023-03",
    ),
    "validation month alone": (
        {"train_month": None, "valid_month": "2023-02"},
        "valid_month 2023-02 without a train_month: give both, or neither",
    ),
    "no trials": ({"num_trials": 0}, "num_trials: Input should be greater than or equal to 1"),
    "share above 1": ({"max_bad_share": 20}, "max_bad_share: Input should be less than or equal"),
    "limit of 0": ({"max_rmse_valid": 0}, "max_rmse_valid: Input should be greater than 0"),
    "text for a number": ({"num_trials": "many"}, "num_trials: Input should be a valid integer"),
}


@pytest.mark.parametrize(("given", "said"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_a_parameter_that_makes_no_sense_is_refused_before_anything_is_done(
    given: Parameters, said: str, here: Place
) -> None:
    message = failed(**given)
    assert said in message
    assert "s3cret" not in message
    assert not Path(here.store).exists()
    assert [e.name for e in here.client.search_experiments()] == ["Default"]


# --- the web -------------------------------------------------------------------------------------


@contextmanager
def site(status: int, body: bytes) -> Iterator[str]:
    """Gives everything one answer."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/trip-data"
        server.shutdown()


def test_a_month_that_is_not_published_is_said_to_be(here: Place) -> None:
    with site(403, b"") as url:
        message = failed(data=url)
    assert f"2023-01 is not published: {url}/green_tripdata_2023-01.parquet gives HTTP 403" in (
        message
    )
    assert "are likely the newest" in message


def test_a_page_instead_of_a_month_is_refused(here: Place) -> None:
    with site(200, b"<html>Sign in to the hotel's network</html>") as url:
        message = failed(data=url)
    assert f"cannot fetch {url}/green_tripdata_2023-01.parquet: the answer is not a whole" in (
        message
    )
    assert not list(Path(here.store).rglob("*.parquet"))


def nobody() -> str:
    """An address where nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_site_that_is_gone_is_named_with_the_attempts_that_were_made(here: Place) -> None:
    message = failed(data=nobody())
    assert "refused (attempts: 5); check the network and the address, or give data=" in message


# --- the stack -----------------------------------------------------------------------------------


def test_an_mlflow_that_is_gone_is_said_within_seconds(
    here: Place, months: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it may be starting: this fault is tried again, for 15 seconds at most
    assert sum(RETRIED["retry_delay_seconds"](RETRIED["retries"])) < 15
    monkeypatch.setattr(train.start_experiment, "retry_delay_seconds", [0, 0, 0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    message = failed(data=str(months))
    assert "TrackingError: MLflow doesn't answer at http://127.0.0.1:" in message
    assert "`make up` starts it" in message


def test_settings_that_are_missing_are_named_together(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("TRAINYARD_ARTIFACT_STORE")
    message = failed()
    assert "TRAINYARD_ARTIFACT_STORE and MLFLOW_TRACKING_URI not set" in message
    assert "`make up`" in message


def test_a_store_that_cannot_be_written_is_named(
    here: Place, months: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").write_text("a file, not a folder")
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", str(tmp_path / "full"))
    message = failed(data=str(months))
    assert f"ArtifactStoreError: cannot write {tmp_path / 'full'}/runs/" in message
    assert "check that it is a folder" in message


def test_a_store_whose_bucket_is_not_there_is_named(
    here: Place, s3: str, months: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "s3://trainyard-of-nobody/store")
    message = failed(data=str(months))
    assert "there is no bucket 'trainyard-of-nobody': create it, or correct the artifact" in message


def test_a_month_without_a_single_good_row_is_refused_even_if_any_share_is_allowed(
    here: Place, months: Path
) -> None:
    put_month(months, JANUARY, synthetic_month(JANUARY, rows=300).with_columns(trip_distance=0.0))
    message = failed(data=str(months), max_bad_share=1)
    assert f"green_tripdata_{JANUARY}.parquet: none of its 300 rows can be used (" in message
