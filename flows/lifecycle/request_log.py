"""The log of what served models were asked, as its readers need it (serving_log.py writes it).

`served/<model>/day=YYYY-MM-DD/ALIAS.VERSION.<unique>.parquet` of the artifact store, by the day in
UTC, has a row for each row of a request: the columns that were sent, the answers, null where there
was none, and `COLUMNS`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
from upath import UPath

from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.registry import CHALLENGER
from flows.platform.artifact_store import artifact_path, files_in, read_parquet

REQUEST, ALIAS, VERSION = "request_id", "alias", "model_version"
AT, SECONDS = "answered_at", "answer_seconds"
COLUMNS = (REQUEST, AT, SECONDS, ALIAS, VERSION)
AT_ONCE = 16
"""Files read beside each other: on S3 nearly all of a small file's time is waiting."""


@dataclass(frozen=True)
class Requests:
    """What the champion was asked in a month, of the version that answered the most rows."""

    version: str
    answered: pl.DataFrame
    """Its rows with answers, drawn by request where they are many."""
    rows: int
    """All of its rows."""
    unanswered: int
    of_others: int
    """Rows that other versions answered."""


def day_folder(store: str, model: str, day: date) -> UPath:
    return artifact_path(store, "served", model, f"day={day}")


def count_shadowed(store: str, model: str, version: str, since: date, enough: int) -> int:
    """How many requests a version has answered as the challenger; `enough` ends the counting.

    Args:
        since: the day that the version is of.

    Raises:
        ArtifactStoreError: the log can't be read.
    """
    found: set[str] = set()
    day = datetime.now(UTC).date()
    while day >= since:
        pattern = f"{CHALLENGER}.{version}.*.parquet"
        for file in files_in(day_folder(store, model, day), pattern) or []:
            found.update(read_parquet(file, [REQUEST])[REQUEST])
            if len(found) >= enough:
                return enough
        day -= timedelta(days=1)
    return len(found)


def read_requests(
    store: str, model: str, month: str, answers: Sequence[str], most: int
) -> Requests | None:
    """Read what the champion was asked in a month; None where nothing was logged.

    Args:
        month: like 2026-05.
        answers: the columns with the answers.
        most: rows in memory; of more, requests are drawn by their ids.

    Raises:
        ArtifactStoreError: the log can't be read.
    """
    rows, unanswered = Counter[str](), Counter[str]()
    kept: dict[str, list[pl.DataFrame]] = {}
    one_of, held = 1, 0
    for version, frame in _champions(store, model, month):
        known = frame.drop_nulls(answers)
        rows[version] += len(frame)
        unanswered[version] += len(frame) - len(known)
        drawn = _drawn(known, one_of)
        kept.setdefault(version, []).append(drawn)
        held += len(drawn)
        if held > most:
            one_of *= 2
            joined = {of: pl.concat(parts, how="diagonal_relaxed") for of, parts in kept.items()}
            kept = {of: [_drawn(part, one_of)] for of, part in joined.items()}
            held = sum(len(part) for (part,) in kept.values())
    if not rows:
        return None
    ((version, count),) = rows.most_common(1)
    whole = pl.concat(kept[version], how="diagonal_relaxed")
    return Requests(version, whole, count, unanswered[version], rows.total() - count)


def _champions(store: str, model: str, month: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """The files of a month that the champion's answers are in, each with its version."""
    day = date.fromisoformat(f"{month}-01")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while f"{day:%Y-%m}" == month:
            files = files_in(day_folder(store, model, day), f"{CHAMPION}.*.parquet") or []
            for start in range(0, len(files), AT_ONCE):
                some = files[start : start + AT_ONCE]
                versions = (file.name.split(".")[1] for file in some)
                yield from zip(versions, pool.map(read_parquet, some), strict=True)
            day += timedelta(days=1)


def _drawn(rows: pl.DataFrame, one_of: int) -> pl.DataFrame:
    """About one request of so many; one of twice as many are among them."""
    return rows.filter(pl.col(REQUEST).hash(seed=0) % one_of == 0) if one_of > 1 else rows
