import hashlib
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from upath import UPath

from flows.platform.artifact_store import ArtifactStoreError, artifact_path
from flows.taxi import source
from flows.taxi.contract import read_month
from flows.taxi.months import chosen_months, latest_months, months_until, parse_month, quarters
from flows.taxi.source import SourceError, raw_month
from flows.taxi.synthetic import synthetic_month

JANUARY = "green_tripdata_2023-01.parquet"


class Site(ThreadingHTTPServer):
    """A web site on loopback with one file; before that it answers as `faults` says, in turn.

    A fault is an HTTP status, or: "refuse" (the connection ends without an answer), "cut" (half
    of the promised length), "cut quietly" (half, with no length promised), "stall" (half, then
    silence), "page" (an HTML page with status 200), "drip" (a byte now and then, without end),
    "flood" (all there is, without end).
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.faults: list[int | str] = []
        self.asked: list[str] = []
        self.prefix = f"http://127.0.0.1:{self.server_port}/trip-data"
        self.closing = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing when a client hangs up."""


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site = self.server
        site.asked.append(self.path)
        fault = site.faults.pop(0) if site.faults else None
        half = site.content[: len(site.content) // 2]
        if fault == "refuse":
            self.connection.close()
        elif fault == "cut":
            self.answer(200, half, len(site.content))
        elif fault == "cut quietly":
            self.answer(200, half, None)
        elif fault == "stall":
            self.answer(200, half, len(site.content))
            site.closing.wait(10)
        elif fault == "page":
            page = b"<html>Please accept our cookies</html>"
            self.answer(200, page, len(page))
        elif fault in ("drip", "flood"):
            self.answer(200, b"", None)
            while not site.closing.wait(0.1 if fault == "drip" else 0):
                self.wfile.write(b"x" if fault == "drip" else b"x" * 100_000)
        elif isinstance(fault, int):
            self.answer(fault, b"no", 2)
        else:
            self.answer(200, site.content, len(site.content))

    def answer(self, status: int, body: bytes, length: int | None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def month_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("month") / JANUARY
    synthetic_month("2023-01", rows=2000).write_parquet(path)
    return path.read_bytes()


@pytest.fixture
def site(month_file: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(source, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(source, "TIMEOUT", httpx.Timeout(5))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Site(month_file) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> UPath:
    return artifact_path(str(tmp_path / "store"))


def files(store: UPath) -> list[str]:
    return sorted(path.name for path in Path(str(store)).rglob("*") if path.is_file())


# --- the web -------------------------------------------------------------------------------------


def test_a_month_from_the_web_is_kept_whole_with_its_checksum(site: Site, store: UPath) -> None:
    path = raw_month(site.prefix, "2023-01", store)
    assert path.name == JANUARY
    assert path.read_bytes() == site.content
    assert files(store) == [JANUARY, f"{JANUARY}.sha256"]
    digest = hashlib.sha256(site.content).hexdigest()
    # as `sha256sum --check` reads it
    assert path.with_name(f"{JANUARY}.sha256").read_text() == f"{digest}  {JANUARY}\n"


def test_a_month_is_fetched_once(site: Site, store: UPath) -> None:
    first = raw_month(site.prefix, "2023-01", store)
    assert raw_month(f"{site.prefix}/", "2023-01", store) == first
    assert site.asked == [f"/trip-data/{JANUARY}"]


def test_each_month_is_fetched_for_itself(site: Site, store: UPath) -> None:
    assert raw_month(site.prefix, "2023-01", store) != raw_month(site.prefix, "2023-02", store)
    assert len(site.asked) == 2


def test_the_same_month_of_another_site_is_fetched_anew(site: Site, store: UPath) -> None:
    other = site.prefix.replace("127.0.0.1", "localhost")
    assert raw_month(site.prefix, "2023-01", store) != raw_month(other, "2023-01", store)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a-b"),
        ("a/b", "a//b"),
        ("A", "a"),
        ("a%20b", "a b"),
        ("a;b", "a,b"),
        ("x" * 90, "x" * 91),
    ],
)
def test_two_addresses_have_two_files(site: Site, store: UPath, one: str, other: str) -> None:
    paths = {raw_month(f"{site.prefix}/{part}", "2023-01", store) for part in (one, other)}
    assert len({str(path).lower() for path in paths}) == 2  # on a Mac's disk, too
    assert len(site.asked) == 2


def test_a_cached_months_folder_is_named_after_its_address(site: Site, store: UPath) -> None:
    path = raw_month(f"{site.prefix}/green", "2023-01", store)
    address = f"{site.prefix}/green".partition("://")[2]
    assert path.parent.name.startswith(re.sub("[:/]+", "-", address) + "-")


@pytest.mark.parametrize(
    "data",
    [
        "https://me:s3cret@host/months",
        "HTTPS://s3cret@host/months",
        "https://me:s3cr/et@host/s3cret",
        "https://host/months?sig=s3cret",
        "http://host/months#s3cret",
        "https:/me:s3cret@host/months",
        "//me:s3cret@host/months",
        "me:s3cret@host/months",
        "s3://key:s3cret@bucket/months",
        "gs://key:s3cret@bucket/months",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(
    data: str, store: UPath, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SourceError, match="has a user, a password or a query") as error:
        raw_month(data, "2023-01", store)
    assert "s3cr" not in f"{error.value}{error.value.__cause__}{caplog.text}"
    assert not store.exists()


@pytest.mark.parametrize("name", ["a@b", "who?", "a:b", "#1"])
def test_a_folder_may_have_any_name(tmp_path: Path, store: UPath, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / JANUARY).touch()
    assert raw_month(str(folder), "2023-01", store).name == JANUARY


def test_a_download_has_an_end_in_time(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_SECONDS", 0.5)
    site.faults = ["drip"] * 9
    with pytest.raises(SourceError, match=r"cannot fetch http.*: not whole after 0 s, \d+ bytes"):
        raw_month(site.prefix, "2023-01", store)
    assert len(site.asked) == 1
    assert files(store) == []


def test_attempts_at_a_download_have_an_end_in_time(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(source, "FIRST_WAIT", 0.6)
    site.faults = [503] * 9
    with pytest.raises(SourceError, match="HTTP 503"):
        raw_month(site.prefix, "2023-01", store)
    assert len(site.asked) == 2


@pytest.mark.parametrize("fault", ["flood", None])
def test_a_download_has_an_end_in_size(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", len(site.content) - 1)
    site.faults = [fault] if fault else []
    with pytest.raises(SourceError, match=r"2023-01\.parquet has more than 0 MB, and a month"):
        raw_month(site.prefix, "2023-01", store)
    assert len(site.asked) == 1
    assert files(store) == []


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no checksum", "empty checksum"])
def test_a_damaged_month_in_the_store_is_fetched_anew(
    site: Site, store: UPath, damage: str
) -> None:
    path = Path(str(raw_month(site.prefix, "2023-01", store)))
    checksum = path.with_name(f"{path.name}.sha256")
    if damage == "changed":
        path.write_bytes(site.content.replace(b"PAR1", b"par1", 1))
    elif damage == "cut":
        path.write_bytes(site.content[:-1])
    elif damage == "gone":
        path.unlink()
    elif damage == "no checksum":
        checksum.unlink()
    else:
        checksum.write_bytes(b"")
    raw_month(site.prefix, "2023-01", store)
    assert path.read_bytes() == site.content
    raw_month(site.prefix, "2023-01", store)
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    "fault", [500, 502, 503, 504, 429, "refuse", "cut", "cut quietly", "stall", "page"]
)
def test_a_passing_fault_is_tried_again(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    if fault == "stall":
        monkeypatch.setattr(source, "TIMEOUT", httpx.Timeout(10, read=1))
    site.faults = [fault, fault]
    assert raw_month(site.prefix, "2023-01", store).read_bytes() == site.content
    assert len(site.asked) == 3
    assert files(store) == [JANUARY, f"{JANUARY}.sha256"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (503, "HTTP 503"),
        ("refuse", "disconnected"),
        ("cut", "without sending complete message body"),
        ("cut quietly", "the answer is not a whole Parquet file"),
        ("stall", "timed out"),
        ("page", "the answer is not a whole Parquet file"),
    ],
)
def test_a_fault_that_stays_ends_with_what_and_where_and_an_empty_store(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch, fault: int | str, message: str
) -> None:
    if fault == "stall":
        monkeypatch.setattr(source, "TIMEOUT", httpx.Timeout(10, read=1))
    site.faults = [fault] * 9
    with pytest.raises(SourceError) as error:
        raw_month(site.prefix, "2023-01", store)
    assert message in str(error.value)
    assert f"cannot fetch {site.prefix}/{JANUARY}" in str(error.value)
    assert "(attempts: 5); check the network" in str(error.value)
    assert len(site.asked) == 5
    assert files(store) == []


def test_waits_between_attempts_double(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(source, "FIRST_WAIT", 1.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    site.faults = [503] * 4
    raw_month(site.prefix, "2023-01", store)
    assert [int(wait) for wait in waits] == [1, 2, 4, 8]


@pytest.mark.parametrize("status", [403, 404])
def test_an_unpublished_month_is_said_at_once_with_the_newest_ones(
    site: Site, store: UPath, status: int
) -> None:
    site.faults = [status]
    with pytest.raises(SourceError) as error:
        raw_month(site.prefix, "2031-05", store)
    assert str(error.value).startswith("2031-05 is not published: http://127.0.0.1")
    assert " and ".join(latest_months(datetime.now(UTC))) in str(error.value)
    assert len(site.asked) == 1


def test_another_refusal_is_not_tried_again(site: Site, store: UPath) -> None:
    site.faults = [401]
    with pytest.raises(SourceError, match="HTTP 401; check the address"):
        raw_month(site.prefix, "2023-01", store)
    assert len(site.asked) == 1


def test_a_site_that_is_not_there_is_named(site: Site, store: UPath) -> None:
    with pytest.raises(SourceError, match=r"cannot fetch http://127\.0\.0\.1:9/x/.*refused"):
        raw_month("http://127.0.0.1:9/x", "2023-01", store)


def test_a_month_is_never_whole_in_memory(
    site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(_: object) -> bytes:
        raise AssertionError("the body was read at once")

    monkeypatch.setattr(httpx.Response, "read", whole)
    raw_month(site.prefix, "2023-01", store)


def test_tlc_is_its_public_site(site: Site, store: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source.TLC == "https://d37ci6vzurychx.cloudfront.net/trip-data"
    monkeypatch.setattr(source, "TLC", site.prefix)
    assert raw_month("tlc", "2023-01", store).read_bytes() == site.content


# --- folders -------------------------------------------------------------------------------------


def test_a_month_in_a_folder_is_used_where_it_is(tmp_path: Path, store: UPath) -> None:
    (tmp_path / JANUARY).touch()
    assert raw_month(str(tmp_path), "2023-01", store) == UPath(tmp_path / JANUARY)
    assert raw_month(tmp_path.as_uri(), "2023-01", store).path == str(tmp_path / JANUARY)
    assert not store.exists()


def test_a_relative_folder_is_told_in_full(
    tmp_path: Path, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"there is no folder {tmp_path}/months; give synthetic"):
        raw_month("months", "2023-01", store)


def test_a_month_that_a_folder_lacks_is_named_with_those_it_has(
    tmp_path: Path, store: UPath
) -> None:
    for name in ("green_tripdata_2022-12.parquet", JANUARY, "yellow_tripdata_2023-02.parquet"):
        (tmp_path / name).touch()
    message = (
        rf"no green_tripdata_2023-02.parquet in {tmp_path}; it has 2022-12, 2023-01, and beside"
        r" them yellow_tripdata_2023-02.parquet; only green taxis' files have the columns"
    )
    with pytest.raises(SourceError, match=message):
        raw_month(str(tmp_path), "2023-02", store)


def test_a_folder_without_months_is_said(tmp_path: Path, store: UPath) -> None:
    with pytest.raises(SourceError, match="it has no green_tripdata months: it is empty"):
        raw_month(str(tmp_path), "2023-02", store)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("green_tripdata_2023-02.csv", "CSV files have to be converted to Parquet"),
        ("green_tripdata_2023-02.csv.gz", "CSV files have to be converted to Parquet"),
        ("year=2023/month=02/part-0.parquet", "folders of partitions aren't looked into"),
        ("month=2023-02/part-0.parquet", "folders of partitions aren't looked into"),
        ("yellow_tripdata_2023-02.parquet", "only green taxis' files"),
        ("fhvhv_tripdata_2023-02.parquet", "only green taxis' files"),
        ("Green_Tripdata_2023-02.parquet", "expected is one file a month"),
    ],
)
def test_what_a_folder_has_instead_is_named_with_what_is_expected(
    tmp_path: Path, store: UPath, there: str, said: str
) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    with pytest.raises(SourceError) as error:
        raw_month(str(tmp_path), "2023-02", store)
    assert f"beside them {there.split('/')[0]}; " in str(error.value)
    assert said in str(error.value)
    assert "green_tripdata_YYYY-MM.parquet, in the folder" in str(error.value)


def test_a_folder_of_many_files_is_told_by_its_first(tmp_path: Path, store: UPath) -> None:
    for number in range(8):
        (tmp_path / f"part-{number}.csv").touch()
    with pytest.raises(SourceError, match=r"part-4\.csv and 3 more; CSV files have to be"):
        raw_month(str(tmp_path), "2023-02", store)


def test_a_month_in_a_folder_has_a_size_too(
    tmp_path: Path, store: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 9)
    (tmp_path / JANUARY).write_bytes(b"x" * 10)
    with pytest.raises(SourceError, match=rf"{tmp_path / JANUARY} has more than"):
        raw_month(str(tmp_path), "2023-01", store)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, store: UPath) -> None:
    (tmp_path / JANUARY).touch()
    with pytest.raises(SourceError, match=f"{tmp_path / JANUARY}"):
        raw_month(str(tmp_path / JANUARY), "2023-01", store)


@pytest.mark.parametrize("data", ["gs://bucket", "ftp://host/months"])
def test_an_unknown_kind_of_source_is_refused_with_those_there_are(data: str, store: UPath) -> None:
    with pytest.raises(SourceError, match=f"data={data}: give synthetic, tlc, a folder, an s3"):
        raw_month(data, "2023-01", store)


# --- synthetic -----------------------------------------------------------------------------------


def test_a_synthetic_month_is_written_once(store: UPath) -> None:
    path = raw_month("synthetic", "2023-01", store)
    written = Path(str(path)).stat().st_mtime_ns
    assert raw_month("synthetic", "2023-01", store) == path
    assert Path(str(path)).stat().st_mtime_ns == written
    assert read_month(path).equals(synthetic_month("2023-01"))


def test_nothing_is_fetched_for_a_store_that_cannot_be_read(site: Site, tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(ArtifactStoreError, match="cannot read"):
        raw_month(site.prefix, "2023-01", artifact_path(str(tmp_path / "store")))
    assert site.asked == []


def test_a_store_that_cannot_be_written_is_the_stores_fault(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(ArtifactStoreError, match=r"cannot .* check that it is a folder"):
        raw_month("synthetic", "2023-01", artifact_path(str(tmp_path / "store")))


# --- months --------------------------------------------------------------------------------------


@pytest.mark.parametrize("month", ["2023-13", "2023-1", "23-01", "january", "", "2023-01-01"])
@pytest.mark.parametrize("data", ["synthetic", "tlc", "."])
def test_what_is_not_a_month_is_refused_before_anything_is_fetched(
    month: str, data: str, store: UPath
) -> None:
    with pytest.raises(ValueError, match=f"{month!r} is not a month: write it like 2023-01"):
        raw_month(data, month, store)


def test_a_month_ends_where_the_next_begins() -> None:
    assert parse_month("2023-01") == (datetime(2023, 1, 1), datetime(2023, 2, 1))
    assert parse_month("2023-12") == (datetime(2023, 12, 1), datetime(2024, 1, 1))


@pytest.mark.parametrize(
    ("scheduled", "months"),
    [
        (datetime(2023, 4, 5), ("2023-01", "2023-02")),
        (datetime(2023, 3, 5), ("2022-12", "2023-01")),
        (datetime(2023, 2, 28), ("2022-11", "2022-12")),
        (datetime(2023, 1, 1), ("2022-10", "2022-11")),
        (datetime(2023, 12, 31), ("2023-09", "2023-10")),
    ],
)
def test_the_newest_months_are_three_and_two_months_back(
    scheduled: datetime, months: tuple[str, str]
) -> None:
    assert latest_months(scheduled) == months


def test_a_run_without_months_takes_the_newest_ones_of_its_schedule() -> None:
    assert chosen_months(None, None, datetime(2023, 4, 5)) == ("2023-01", "2023-02")


def test_validation_is_on_the_month_after_training_unless_told() -> None:
    scheduled = datetime(2030, 1, 1)
    assert chosen_months("2022-12", None, scheduled) == ("2022-12", "2023-01")
    assert chosen_months("2022-12", "2023-03", scheduled) == ("2022-12", "2023-03")


def test_one_month_is_the_training_month_or_the_newest() -> None:
    scheduled = datetime(2023, 4, 5)
    assert chosen_months("2022-12", None, scheduled, one_month=True) == ("2022-12", "2022-12")
    assert chosen_months(None, None, scheduled, one_month=True) == ("2023-02", "2023-02")
    for train, valid, message in (
        ("2023-01", "2023-02", "valid_month 2023-02 with one_month"),
        ("2023-1", None, "is not a month"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen_months(train, valid, scheduled, one_month=True)


def test_months_until_one_go_back_over_the_turn_of_the_year() -> None:
    assert months_until("2023-02", 1) == ["2023-02"]
    assert months_until("2023-02", 4) == ["2022-11", "2022-12", "2023-01", "2023-02"]
    assert months_until("2023-12", 13)[0] == "2022-12"


@pytest.mark.parametrize(
    ("month", "days"),
    [
        ("2023-01", ((1, 23), (24, 31))),
        ("2023-02", ((1, 21), (22, 28))),
        ("2024-02", ((1, 21), (22, 29))),
        ("2023-04", ((1, 22), (23, 30))),
    ],
)
def test_a_months_last_quarter_begins_with_a_day(
    month: str, days: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    assert quarters(month) == days


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        (None, "2023-01", "without a train_month"),
        ("2023-02", "2023-01", "not after train_month"),
        ("2023-01", "2023-01", "not after train_month"),
        ("2023-1", None, "is not a month"),
        ("2023-01", "02", "is not a month"),
    ],
)
def test_months_that_cannot_follow_each_other_are_refused(
    train: str | None, valid: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_months(train, valid, datetime(2030, 1, 1))
