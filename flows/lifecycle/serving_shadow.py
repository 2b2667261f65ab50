"""The challenger in shadow: it answers what the champion has answered, and nobody gets its answers.

They are logged beside the champion's and compared in /metrics. One thread of its own asks it, after
a request's answer has gone; what comes while too much waits is dropped and counted.
"""

import logging
import time
from collections import deque
from threading import Condition, Event, Thread

import polars as pl
from mlflow import MlflowClient

from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.registry import CHALLENGER, aliases
from flows.lifecycle.scoring import answers
from flows.lifecycle.serving_log import Answered, RequestLog, now, only_known
from flows.lifecycle.serving_metrics import ShadowMetrics
from flows.lifecycle.serving_models import Served, Watch
from flows.lifecycle.spec import ModelSpec

logger = logging.getLogger(__name__)

MOST_WAITING = 50_000
"""Rows."""


class ChallengerWatch(Watch):
    """Keeps `current` the challenger's version while that isn't the champion too; else None."""

    TAKEN, REFUSED = "answers in shadow", "is not asked in shadow"
    NONE = "no challenger is asked"

    def look(self) -> None:
        try:
            known = aliases(self._client, self.spec.name)
        except Exception:
            super().look()  # MLflow is away: it says so
            return
        number = known.get(self.alias)
        wanted = number if number != known.get(CHAMPION) else None
        if self.current and self.current.version != wanted:
            logger.info("%s version %s answers no more", self.spec.name, self.current.version)
            self.current = None  # before another is loaded: each takes memory
            self._metrics.version.set(0)
        if wanted is None:
            self.confirm()
        else:
            super().look()


class Shadow:
    """Asks the challenger, where there is one.

    Args:
        client: of MLflow.
        example: rows that a version has to answer before it is taken.
        log: has the champion's answers, and gets the challenger's.
    """

    def __init__(
        self,
        client: MlflowClient,
        spec: ModelSpec,
        example: pl.DataFrame,
        log: RequestLog,
        metrics: ShadowMetrics,
    ) -> None:
        self.watch = ChallengerWatch(client, spec, CHALLENGER, example, metrics)
        self._spec, self._log, self._metrics = spec, log, metrics
        self._queue: deque[tuple[Answered, bool]] = deque()
        self._waiting, self._changed, self._stop = 0, Condition(), Event()
        self._thread = Thread(target=self._follow, name="shadow", daemon=True)
        self._failed = ""
        """The version that was said to fail."""

    def start(self) -> None:
        Thread(target=self.watch.follow, args=(self._stop,), daemon=True).start()
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing more: what waits is given up, so that the log can be written."""
        with self._changed:
            self._stop.set()
            self._queue.clear()
            self._changed.notify()
        self._thread.join(0.5)

    def offer(self, answered: Answered, logged: bool) -> None:
        """Ask the challenger some time later, if there is one and it isn't busy.

        Args:
            logged: whether the champion's answers are in the log, so that these are to be, too.
        """
        if self.watch.current is None:
            return
        cost = _cost(answered)
        with self._changed:
            if self._waiting + cost <= MOST_WAITING:
                self._waiting += cost
                self._queue.append((answered, logged))
                self._changed.notify()
                return
        self._metrics.dropped.inc(len(answered.rows))

    def _follow(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stop.is_set())
            self.work()

    def work(self) -> None:
        """Ask the challenger all that waits."""
        while True:
            with self._changed:
                if not self._queue:
                    return
                answered, logged = self._queue.popleft()
            served = self.watch.current
            # a promotion may be under way: the champion's own answers say nothing
            if served and served.version != answered.version:
                self._ask(served, answered, logged)
            with self._changed:
                self._waiting -= _cost(answered)

    def _ask(self, served: Served, answered: Answered, logged: bool) -> None:
        metrics, version, start = self._metrics, served.version, time.perf_counter()
        try:
            given, known = answers(served.model, self._spec, answered.rows)
            took = time.perf_counter() - start
            mine = Answered(
                answered.rows, given, known, CHALLENGER, version, answered.request, now(), took
            )
            self._compare(mine, answered)
        except Exception:
            metrics.failed.labels(version).inc(len(answered.rows))
            if self._failed != version:
                logger.exception("%s version %s fails in shadow", self._spec.name, version)
            self._failed = version
            return
        metrics.seconds.labels(version).observe(took)
        if logged:
            self._log.add(mine)

    def _compare(self, mine: Answered, champions: Answered) -> None:
        metrics, version = self._metrics, mine.version
        new, old = (only_known(each.answers, each.known) for each in (mine, champions))
        for name in self._spec.answers:
            differ = new[name].ne_missing(old[name])
            metrics.different.labels(version, name).inc(int(differ.sum()))
            if new[name].dtype.is_numeric() and old[name].dtype.is_numeric():
                apart = (new[name] - old[name]).abs().sum()
                metrics.distance.labels(version, name).inc(float(apart))
        metrics.rows.labels(version).inc(len(mine.rows))


def _cost(answered: Answered) -> int:
    """Of what waits: a request counts for 10 rows at least, because its frames take as much."""
    return max(10, len(answered.rows))
