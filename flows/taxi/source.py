"""Where a month's raw trips come from: a folder, S3, the web, or a seeded generator."""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedRandom

import httpx
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)
from upath import UPath

from flows.platform.address import require_plain_address
from flows.platform.artifact_store import (
    ArtifactStoreError,
    artifact_path,
    read,
    sha256,
    write,
    writing,
)
from flows.taxi.months import latest_months, parse_month
from flows.taxi.synthetic import synthetic_month

logger = logging.getLogger(__name__)

TLC = "https://d37ci6vzurychx.cloudfront.net/trip-data"
FILE_NAME = "green_tripdata_{month}.parquet"

# seconds; `read` is between two pieces of the file, not for all of it
TIMEOUT = httpx.Timeout(30, connect=10)
# of one month, with all its attempts; TLC's largest have 20 MB
MAX_SECONDS = 900.0
MAX_BYTES = 500_000_000
# waits of about 1, 2, 4 and 8 s: outlasts a hiccup, not an outage
ATTEMPTS = 5
FIRST_WAIT = 1.0


class SourceError(ValueError):
    """A month cannot be had: the message says what, where and what to do."""


class _PassingError(Exception):
    """A fault of one download that the next attempt may not meet."""


PASSING = (
    httpx.NetworkError,
    httpx.TimeoutException,
    httpx.RemoteProtocolError,  # such as a body cut short
    httpx.ProxyError,
    _PassingError,
)


def raw_month(data: str, month: str, store: UPath) -> UPath:
    """Return the path of a month's raw Parquet file, fetched or made first where it has to be.

    Args:
        data: a folder or `s3://` prefix that holds green_tripdata_YYYY-MM.parquet files;
            `tlc` (TLC's public site) or any `http(s)://` prefix, whose files are kept in the
            store; or `synthetic`.
        month: like 2023-01.
        store: the artifact store; what is fetched or made goes under its `raw` folder, with
            its SHA-256 beside it.

    Raises:
        SourceError: the month isn't there or can't be fetched.
        ArtifactStoreError: the store can't be written.
        ValueError: `month` is not a month.
    """
    parse_month(month)
    try:
        require_plain_address(data)
    except ValueError as error:
        raise SourceError(str(error)) from None
    name = FILE_NAME.format(month=month)
    if data == "synthetic":
        path = store / "raw" / "synthetic" / name
        if not _is_whole(path):
            with _checksummed(path) as file:
                synthetic_month(month).write_parquet(file)
        return path
    if data == "tlc" or re.match(r"https?://", data, re.IGNORECASE):
        prefix = TLC if data == "tlc" else data.rstrip("/")
        path = store / "raw" / _cache_folder(prefix) / name
        if not _is_whole(path):
            _download(f"{prefix}/{name}", month, path)
        return path
    return _existing(data, name)


def _cache_folder(prefix: str) -> str:
    """Return a folder's name for each address: the same month from two of them may differ."""
    readable = re.sub(r"[^\w.-]+", "-", prefix.partition("://")[2])[:80]
    return f"{readable}-{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"


def _existing(data: str, name: str) -> UPath:
    """Return the file's path in a folder or S3 prefix that holds it."""
    if "://" in data and not data.startswith(("s3://", "file://")):
        raise SourceError(
            f"data={data}: give synthetic, tlc, a folder, an s3:// prefix or an https:// prefix"
        )
    # absolute, because a worker's folder is not the one that the user typed the path in
    folder = artifact_path(data).expanduser().absolute()
    try:
        if (path := folder / name).exists():
            _require_size(path, path.stat().st_size)
            return path
        there = sorted(file.name for file in folder.iterdir()) if folder.exists() else None
    except SourceError:
        raise
    except Exception as error:  # fsspec's filesystems raise what their clients raise
        raise SourceError(f"cannot look for {name} in {folder}: {error}") from error
    if there is None:
        raise SourceError(
            f"no {name}: there is no folder {folder}; give synthetic, tlc, or one that exists"
        )
    raise SourceError(f"no {name} in {folder}; it has {_described(there)}")


def _described(names: list[str]) -> str:
    """Say what a folder has: its months, else what else there is and what is expected."""
    pattern = re.compile(FILE_NAME.format(month=r"(\d{4}-\d\d)"))
    months = [match[1] for name in names if (match := pattern.fullmatch(name))]
    others = [name for name in names if not pattern.fullmatch(name) and not name.startswith(".")]
    if not others:
        return ", ".join(months) or "no green_tripdata months: it is empty"
    hints = {
        r"(?i)\.csv(\.|$)": "CSV files have to be converted to Parquet",
        r"^\w+=": "folders of partitions aren't looked into",
        r"^(yellow|fhv|fhvhv)_": "only green taxis' files have the columns that training needs",
    }
    listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    advice = [hint for kind, hint in hints.items() if any(re.search(kind, o) for o in others)]
    found = f"{', '.join(months) or 'no green_tripdata months'}, and beside them {listed}"
    expected = f"expected is one file a month, {FILE_NAME.format(month='YYYY-MM')}, in the folder"
    return "; ".join([found, *advice, expected])


def _download(url: str, month: str, path: UPath) -> None:
    """Fetch `url` into `path`, trying again where that may help."""
    deadline = time.monotonic() + MAX_SECONDS
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(MAX_SECONDS),
        wait=wait_exponential(multiplier=FIRST_WAIT) + wait_random(0, FIRST_WAIT / 4),
        retry=retry_if_exception_type(PASSING),
        before_sleep=before_sleep_log(logger, logging.WARNING),
        reraise=True,
    )
    try:
        attempts(_download_once, url, month, path, deadline)
    except (httpx.HTTPError, httpx.InvalidURL, _PassingError) as error:
        fault = str(error) or type(error).__name__
        tries = attempts.statistics["attempt_number"]
        raise SourceError(
            f"cannot fetch {url}: {fault} (attempts: {tries}); "
            "check the network and the address, or give data= a folder that holds the file"
        ) from error


def _download_once(url: str, month: str, path: UPath, deadline: float) -> None:
    # as it is: a compressed body could be of any size
    plain = {"Accept-Encoding": "identity"}
    with httpx.stream(
        "GET", url, headers=plain, timeout=TIMEOUT, follow_redirects=True
    ) as response:
        if response.status_code in (403, 404):  # TLC's site says 403 for a file it doesn't have
            newest = " and ".join(latest_months(datetime.now(UTC)))
            raise SourceError(
                f"{month} is not published: {url} gives HTTP {response.status_code}; TLC publishes "
                f"a month about two months after its end, so {newest} are likely the newest"
            )
        if response.status_code == 429 or response.status_code >= 500:
            raise _PassingError(f"HTTP {response.status_code}")
        if response.status_code != 200:
            raise SourceError(f"cannot fetch {url}: HTTP {response.status_code}; check the address")
        length = response.headers.get("Content-Length", "0")
        if length.isdecimal():
            _require_size(url, int(length))
        last = b""
        with _checksummed(path) as file:
            for piece in response.iter_raw():
                file.write(piece)
                _require_size(url, file.tell())
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"cannot fetch {url}: not whole after {MAX_SECONDS:.0f} s, "
                        f"{file.tell():,} bytes came; try again later, or give data= a folder that "
                        "holds the file"
                    )
                last = (last + piece)[-4:]
            # every Parquet file ends so; an error page or a body cut short without a length doesn't
            if last != b"PAR1":
                raise _PassingError("the answer is not a whole Parquet file")


def _require_size(place: object, size: int) -> None:
    if size > MAX_BYTES:
        raise SourceError(
            f"{place} has more than {MAX_BYTES // 1_000_000} MB, and a month of trips has no more "
            "than that: check the address, or split the file by month"
        )


@contextmanager
def _checksummed(path: UPath) -> Iterator[BufferedRandom]:
    """Write `path` atomically, then its SHA-256 beside it."""
    with writing(path) as file:
        yield file
        file.seek(0)
        line = _checksum_line(hashlib.file_digest(file, "sha256").hexdigest(), path)
    write(_checksum_path(path), line)


def _is_whole(path: UPath) -> bool:
    """Return whether `path` is there as `_checksummed` wrote it."""
    try:
        return read(_checksum_path(path)) == _checksum_line(sha256(path), path)
    except ArtifactStoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise


def _checksum_path(path: UPath) -> UPath:
    return path.with_name(f"{path.name}.sha256")


def _checksum_line(digest: str, path: UPath) -> bytes:
    return f"{digest}  {path.name}\n".encode()  # what `sha256sum --check` reads
