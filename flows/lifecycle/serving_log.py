"""Logs what a served model was asked and what it answered, off the requests' path.

A request's answer goes into a queue; one thread writes files (request_log.py) of many. While the
artifact store is away they wait, and beyond a bound what comes is dropped and counted.
"""

import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime
from threading import Event, Lock, Thread
from uuid import uuid4

import numpy as np
import polars as pl
from upath import UPath

from flows.lifecycle.request_log import ALIAS, AT, COLUMNS, REQUEST, SECONDS, VERSION, day_folder
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.spec import ModelSpec, SpecError
from flows.platform.artifact_store import artifact_path, write_parquet

logger = logging.getLogger(__name__)

FLUSH = 3.0
"""Seconds that the end of the process waits for the log to be written."""


@dataclass(frozen=True)
class Answered:
    """A request with its answers."""

    rows: pl.DataFrame
    answers: pl.DataFrame
    known: pl.Series
    """For which rows there is an answer."""
    alias: str
    version: str
    request: str
    at: datetime
    """In UTC."""
    seconds: float
    """That the model took."""


@dataclass(frozen=True)
class LogLimits:
    """When a file is written, and how much may wait for it."""

    rows: int = 10_000
    seconds: float = 60.0
    waiting_rows: int = 100_000
    """Not written yet, in whatever form."""
    waiting_requests: int = 10_000
    """Of them, each in frames of its own, which cost 4 kB."""
    again: float = 5.0
    """Seconds until a store that was away is tried again."""


class RequestLog:
    """One process' log of one model.

    Args:
        store: the artifact store.
        share: of the requests that are logged, 0 to 1; each is logged whole or not at all.
        columns: that a request's rows have.
        seed: of the sampling, for tests.

    Raises:
        SpecError: the model's own columns have a name of the log's.
    """

    def __init__(
        self,
        store: str,
        spec: ModelSpec,
        columns: list[str],
        share: float,
        metrics: Metrics,
        limits: LogLimits = LogLimits(),
        seed: int | None = None,
    ) -> None:
        names = [*columns, *spec.answers, *COLUMNS]
        if taken := {name for name in names if names.count(name) > 1}:
            raise SpecError(
                f"{spec.name} can't be served with a log: its rows would have "
                f"{', '.join(sorted(taken))} twice; rename the column or the answer"
            )
        # loads what the store needs: under requests it would hold them up for a second
        artifact_path(store).fs  # noqa: B018
        self._store, self._spec, self._share, self._limits = store, spec, share, limits
        self._metrics, self._random = metrics, random.Random(seed)  # noqa: S311  no secret
        self._queue: deque[Answered] = deque()
        self._parts: dict[tuple[str, str, date], list[pl.DataFrame]] = {}
        self._files: list[tuple[UPath, pl.DataFrame]] = []
        self._waiting, self._lock = 0, Lock()
        self._oldest = self._next_try = 0.0
        self._full = self._away = False
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="request-log", daemon=True)

    def sampled(self) -> bool:
        """Whether the next request is logged."""
        return self._random.random() < self._share

    def add(self, answered: Answered) -> None:
        """Log a request some time later, or drop it where too much waits: it takes no time."""
        count, limits = len(answered.rows), self._limits
        with self._lock:
            fits = self._waiting + count <= limits.waiting_rows
            if fits and len(self._queue) < limits.waiting_requests:
                self._waiting += count
                self._queue.append(answered)
                return
        self._metrics.log_dropped.inc(count)
        if not self._full:
            logger.warning("the request log is full, and drops what comes: its store is too slow")
        self._full = True

    def start(self) -> None:
        self._thread.start()

    def close(self, seconds: float = FLUSH) -> None:
        """Write what waits, within some seconds, and end."""
        self._stop.set()
        self._thread.join(seconds)
        if self._waiting:
            logger.error("%s rows of the request log are lost at the end", f"{self._waiting:,}")

    def _follow(self) -> None:
        while not self._stop.wait(1.0):
            self.write()
        while self._waiting:
            self.write(last=True)
            time.sleep(0.1)

    def write(self, last: bool = False) -> None:
        """Take what is in the queue; write a file if there is enough, or if it is the last time."""
        self._collect()
        rows = sum(len(part) for parts in self._parts.values() for part in parts)
        due = time.monotonic() - self._oldest >= self._limits.seconds
        if rows and (last or due or rows >= self._limits.rows):
            for (alias, version, day), parts in self._parts.items():
                name = f"{alias}.{version}.{uuid4().hex}.parquet"
                path = day_folder(self._store, self._spec.name, day) / name
                self._files.append((path, pl.concat(parts, how="vertical_relaxed")))
            self._parts = {}
        while self._files and (last or time.monotonic() >= self._next_try):
            if not self._written(*self._files[0]):
                break
            del self._files[0]

    def _collect(self) -> None:
        """Make few frames of many requests, so that those that wait are small."""
        taken = [self._queue.popleft() for _ in range(len(self._queue))]
        if taken and not self._parts:
            self._oldest = time.monotonic()
        groups: dict[tuple[str, str, date], list[Answered]] = {}
        for each in taken:
            groups.setdefault((each.alias, each.version, each.at.date()), []).append(each)
        for key, requests in groups.items():
            self._parts.setdefault(key, []).append(_frame(requests))

    def _written(self, path: UPath, frame: pl.DataFrame) -> bool:
        """Write a file; under the same name as before, if an answer of the store was lost."""
        try:
            write_parquet(frame, path)
        except Exception as error:  # whatever it is, requests are answered and later ones logged
            self._next_try = time.monotonic() + self._limits.again
            if not self._away:
                logger.warning("the request log waits, and tries again: %s", error)
            self._away = True
            return False
        if self._away or self._full:
            logger.info("the request log is written again")
        self._away = self._full = False
        with self._lock:
            self._waiting -= len(frame)
        self._metrics.logged.inc(len(frame))
        return True


def now() -> datetime:
    """In UTC, without an offset: as in the log."""
    return datetime.now(UTC).replace(tzinfo=None)


def only_known(answers: pl.DataFrame, known: pl.Series) -> pl.DataFrame:
    """The answers, null where there is none."""
    if known.all():
        return answers
    return answers.select(pl.when(known).then(pl.col(*answers.columns)))


def _frame(requests: list[Answered]) -> pl.DataFrame:
    """The rows of requests of one version, as the log has them."""
    each = pl.DataFrame(
        {
            REQUEST: [request.request for request in requests],
            AT: pl.Series([request.at for request in requests], dtype=pl.Datetime("us")),
            SECONDS: [request.seconds for request in requests],
            ALIAS: requests[0].alias,
            VERSION: requests[0].version,
        }
    )
    nth = np.repeat(np.arange(len(requests)), [len(request.rows) for request in requests])
    rows = pl.concat([request.rows for request in requests])
    answers = pl.concat([request.answers for request in requests], how="vertical_relaxed")
    known = only_known(answers, pl.concat([request.known for request in requests]))
    return pl.concat([rows, known, each[nth]], how="horizontal")
