"""The version that a served alias names: watched, loaded beside the old one, then taken at once."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any

import polars as pl
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.lifecycle.champion import load_version
from flows.lifecycle.registry import LINEAGE_TAG, Lineage
from flows.lifecycle.scoring import answers
from flows.lifecycle.serving_metrics import WatchMetrics
from flows.lifecycle.spec import ModelSpec

logger = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two looks at the alias: a promotion is taken within 5."""
DOWNLOADS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Where a look at the alias has seconds (serve.py)."""
_downloading = Lock()
AGAIN = 15.0
"""Seconds until a version that was refused is tried again: its files may have been away."""


@dataclass(frozen=True)
class Served:
    """A loaded version. A request takes it once, and answers with it whatever comes meanwhile."""

    model: Any
    version: str
    lineage: Lineage | None
    """None where nothing recorded it."""
    since: datetime


class Watch:
    """Keeps `current` the version that has the alias; where that isn't to be had, the last one.

    Args:
        alias: whose version is served.
        example: rows that a version has to answer before it is taken.
        every: seconds between two looks.
    """

    # in its log; an alarm counts the second (infra/components/observability.py)
    TAKEN, REFUSED, NONE = "answers", "is not taken", "nothing is served"

    def __init__(
        self,
        client: MlflowClient,
        spec: ModelSpec,
        alias: str,
        example: pl.DataFrame,
        metrics: WatchMetrics,
        every: float = EVERY,
    ) -> None:
        self.alias, self.spec = alias, spec
        self.current: Served | None = None
        self._client, self._example, self._metrics, self._every = client, example, metrics, every
        self.confirm()
        self._refused: tuple[str, float] = ("", 0.0)
        metrics.lag.set_function(lambda: time.monotonic() - self._confirmed)

    def follow(self, stop: Event) -> None:
        """Look until `stop` is set."""
        self.look()
        while not stop.wait(self._every):
            self.look()

    def look(self) -> None:
        """Take the alias' version, if it is another one and can be taken; never raises."""
        try:
            version = self._client.get_model_version_by_alias(self.spec.name, self.alias)
        except Exception as error:  # whatever it is, the version that is there goes on answering
            self._warn("away", f"MLflow gives no version of {self._name}: {_line(error)}")
            return
        number = str(version.version)
        if self.current and self.current.version == number:
            self.confirm()
            return
        refused, when = self._refused
        if refused == number and time.monotonic() - when < AGAIN:
            return
        try:
            self._take(version)
        except Exception as error:
            self._refused = (number, time.monotonic())
            self._metrics.refused.inc()
            self._warn(f"refused {number}", f"{self._name} {self.REFUSED}: {_line(error)}")

    def _take(self, version: ModelVersion) -> None:
        with _time_for_downloads():
            model = load_version(self._client, version, self.spec.trusted_types)
        use_one_thread(model)
        # one that can't answer now never does
        encoded(predictions(self.spec, *answers(model, self.spec, self._example)))
        recorded = version.tags.get(LINEAGE_TAG)
        lineage = Lineage.model_validate_json(recorded) if recorded else None
        number = str(version.version)
        self.current = Served(model, number, lineage, datetime.now(UTC))  # one write: the swap
        self.confirm()
        self._metrics.version.set(int(number))
        logger.info("%s version %s %s from now on", self.spec.name, number, self.TAKEN)

    def confirm(self) -> None:
        """Note that all is as the alias says."""
        self._confirmed, self._trouble = time.monotonic(), ""

    @property
    def _name(self) -> str:
        return f"{self.spec.name}@{self.alias}"

    def _warn(self, trouble: str, message: str) -> None:
        """Log it once, and again after another trouble or none."""
        if trouble != self._trouble:
            stays = f"version {self.current.version} stays" if self.current else self.NONE
            logger.warning("%s; %s", message, stays)
        self._trouble = trouble


def predictions(spec: ModelSpec, named: pl.DataFrame, known: pl.Series) -> list[Any]:
    """A model's answers as a client gets them: one a row, None where there is none."""
    single = len(spec.answers) == 1
    values: list[Any] = named[spec.answers[0]].to_list() if single else named.to_dicts()
    return [value if there else None for value, there in zip(values, known, strict=True)]


def encoded(answer: object) -> bytes:
    """An answer as JSON, which knows no NaN."""
    return json.dumps(answer, allow_nan=False).encode()


@contextmanager
def _time_for_downloads() -> Iterator[None]:
    """MLflow sends the first byte of a file once it has fetched all of it from the store."""
    with _downloading:  # champion and challenger have one environment
        given = {name: os.environ.get(name) for name in DOWNLOADS}
        os.environ.update(DOWNLOADS)
        try:
            yield
        finally:
            for name, value in given.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def use_one_thread(model: Any) -> None:
    """Let all parts of a scikit-learn model compute in the thread that asks.

    For a row, threads that wait for each other cost ten times what the row does.
    """
    names = [name for name in model.get_params() if name.split("__")[-1] == "n_jobs"]
    model.set_params(**dict.fromkeys(names, 1))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
