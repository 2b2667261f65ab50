"""The request log: what was answered, as it was answered, and nothing that holds a request up."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.lifecycle import serving_log
from flows.lifecycle.request_log import AT, SECONDS, day_folder
from flows.lifecycle.scoring import answers
from flows.lifecycle.serving_log import Answered, LogLimits, RequestLog, now
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.spec import SpecError
from flows.platform.artifact_store import artifact_path
from tests.flows.lifecycle.models import SPEC, answered

DAY = datetime(2026, 5, 4, 23, 59, 59)


def log_at(store: Path, metrics: Metrics | None = None, **limits: float) -> RequestLog:
    kept = LogLimits(**limits)  # type: ignore[arg-type]
    return RequestLog(str(store), SPEC, ["x"], 1.0, metrics or Metrics(), kept)


def files(store: Path) -> list[str]:
    return sorted(f"{path.relative_to(store)}" for path in store.rglob("*") if path.is_file())


def logged(store: Path) -> pl.DataFrame:
    found = [pl.read_parquet(store / file, hive_partitioning=False) for file in files(store)]
    return pl.concat(found).sort("request_id", "x", nulls_last=True) if found else pl.DataFrame()


def value(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"trainyard_serving_{name}") or 0.0


def test_a_row_has_what_was_sent_and_answered_and_by_whom(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.add(answered(1.0, None, request="a", at=DAY))
    log.add(answered(3.0, request="b", alias="challenger", version="2", at=DAY))
    log.add(answered(5.0, request="c", at=datetime(2026, 5, 5)))
    log.write(last=True)
    assert logged(tmp_path).drop(AT, SECONDS).rows(named=True) == [
        {"x": x, "prediction": y, "request_id": request, "alias": alias, "model_version": version}
        for x, y, request, alias, version in (
            (1.0, 2.0, "a", "champion", "1"),
            (None, None, "a", "champion", "1"),
            (3.0, 4.0, "b", "challenger", "2"),
            (5.0, 6.0, "c", "champion", "1"),
        )
    ]
    assert logged(tmp_path)[AT].to_list() == [DAY, DAY, DAY, datetime(2026, 5, 5)]
    assert [file.rpartition(".")[0].rpartition(".")[0] for file in files(tmp_path)] == [
        "served/tested/day=2026-05-04/challenger.2",
        "served/tested/day=2026-05-04/champion.1",
        "served/tested/day=2026-05-05/champion.1",
    ]


def test_a_file_is_of_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(tmp_path, rows=5, seconds=60)
    for _ in range(2):
        log.add(answered(1.0, 2.0))
        log.write()
    assert files(tmp_path) == []
    log.add(answered(1.0))
    log.write()
    assert len(files(tmp_path)) == 1
    # few ones go once they have waited
    log.add(answered(6.0))
    log.write()
    later = time.monotonic() + 60
    monkeypatch.setattr("flows.lifecycle.serving_log.time.monotonic", lambda: later)
    assert len(files(tmp_path)) == 1
    log.write()
    assert (len(files(tmp_path)), len(logged(tmp_path))) == (2, 6)


def test_requests_are_sampled(tmp_path: Path) -> None:
    def drawn(share: float) -> int:
        log = RequestLog(str(tmp_path), SPEC, ["x"], share, Metrics(), seed=1)
        return sum(log.sampled() for _ in range(1000))

    assert (drawn(0), drawn(1)) == (0, 1000)
    assert 270 < drawn(0.3) < 330


def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.start()
    for _ in range(100):
        log.add(answered(1.0, 2.0))
    log.close()
    assert len(logged(tmp_path)) == 200


@pytest.fixture
def away(tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """An artifact store that is away, and what brings it back."""
    store = tmp_path / "store"
    store.write_text("a file where a folder should be")
    return store, store.unlink


def test_a_store_that_is_away_gets_all_later_and_it_is_told_once(
    away: tuple[Path, Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flows.lifecycle")
    (store, back), metrics = away, Metrics()
    log = log_at(store, metrics, rows=1, again=0)
    for x in range(5):
        log.add(answered(x))
        log.write()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"the request log waits, and tries again: cannot write {store}")
    back()
    log.write()
    assert logged(store)["x"].sort().to_list() == [0, 1, 2, 3, 4]
    assert caplog.messages[1:] == ["the request log is written again"]
    assert (value(metrics, "logged_rows_total"), value(metrics, "log_dropped_rows_total")) == (5, 0)


@pytest.mark.parametrize("bound", [{"waiting_rows": 3}, {"waiting_requests": 3}], ids=str)
def test_what_is_too_much_is_dropped_counted_and_told_once(
    bound: dict[str, float],
    away: tuple[Path, Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (store, back), metrics = away, Metrics()
    log = log_at(store, metrics, again=0, **bound)
    for x in range(10):
        log.add(answered(x))
    assert value(metrics, "log_dropped_rows_total") == 7
    (told,) = caplog.messages
    assert told == "the request log is full, and drops what comes: its store is too slow"
    log.write(last=True)
    back()
    log.write()
    log.add(answered(10))
    log.write(last=True)
    assert logged(store)["x"].sort().to_list() == [0, 1, 2, 10]


def test_rows_that_are_lost_at_the_end_are_told(
    away: tuple[Path, Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    log = log_at(away[0])
    log.start()
    log.add(answered(1.0, 2.0))
    log.close(0.5)
    assert caplog.messages[-1] == "2 rows of the request log are lost at the end"
    away[1]()  # so that its thread ends


def test_a_file_that_was_written_but_not_confirmed_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unconfirmed(frame: pl.DataFrame, path: Path) -> None:
        write(frame, path)
        raise OSError("connection reset")

    log, write = log_at(tmp_path, again=0), serving_log.write_parquet
    log.add(answered(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(serving_log, "write_parquet", unconfirmed)
        log.write(last=True)
    log.write()
    assert logged(tmp_path)["x"].to_list() == [1.0]


def test_columns_that_the_log_has_itself_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"tested can't be .* would have alias, prediction twice"):
        RequestLog(str(tmp_path), SPEC, ["alias", "prediction"], 1.0, Metrics())


def test_the_day_is_of_utc(tmp_path: Path) -> None:
    folder = day_folder(str(tmp_path), "tested", now().date())
    log = log_at(tmp_path)
    log.add(answered(1.0, at=now()))
    log.write(last=True)
    assert artifact_path(str(folder)).exists()


def test_classes_are_logged_too_where_none_is_known(tmp_path: Path) -> None:
    log, rows = log_at(tmp_path), pl.DataFrame({"x": [1.0, None]})
    for names in ([None, None], ["low", None]):
        spec = replace(SPEC, answer=lambda *_, given=names: np.array(given, object))
        by = {"alias": "champion", "version": "1", "request": "a", "at": DAY, "seconds": 0.1}
        log.add(Answered(rows, *answers(None, spec, rows), **by))  # type: ignore[arg-type]
    log.write(last=True)
    assert logged(tmp_path)["prediction"].to_list() == [None, "low", None, None]
