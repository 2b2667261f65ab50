"""The same on SQLite and on PostgreSQL (tier docker)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from flows.platform.settings import SettingsError
from flows.transactions.contract import augment
from flows.transactions.database import SCHEMA, embedded, opened
from tests.flows.transactions.test_contract import made
from tests.flows.transactions.whole_reads import ingest, small_api


def rows(**other: object) -> pl.DataFrame:
    return augment([made(**other)]).rows


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_or_doubled_whatever_fails(seed: int, url: str) -> None:
    """Of the faults of a seed; and the first attempt is killed within a page."""
    api = small_api(seed)
    with opened(url) as database:
        with killed_at_commit(seed % 6), pytest.raises(KilledError):
            ingest(api, database)
        ingest(api, database)
        found = database.read()
    wanted = augment(api.versions[-1])
    assert found.equals(wanted.rows)
    assert found.schema == SCHEMA
    assert len(found) + len(wanted.broken) == len(api.versions[-1]) >= 300


class KilledError(Exception):
    pass


@contextmanager
def killed_at_commit(number: int) -> Iterator[None]:
    """End the block where the rows of a page are written, and before they are there to stay."""
    left = iter(range(number))

    def kill(connection: sa.Connection) -> None:
        if next(left, None) is None:
            raise KilledError

    sa.event.listen(sa.Engine, "commit", kill)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "commit", kill)


def test_a_newer_transaction_replaces_an_older_one_and_never_the_other_way(url: str) -> None:
    late = rows(status="refunded", updated_at="2026-04-01T00:00:00Z")
    with opened(url) as database:
        for each in (rows(), late, rows(), rows(id="t2")):
            database.upsert(each)
        assert database.read()["status"].to_list() == ["refunded", "settled"]
        assert database.count() == 2
    with opened(url) as database:
        assert database.read()["id"].to_list() == ["t1", "t2"]


def test_an_id_that_comes_twice_in_one_write_is_no_error(url: str) -> None:
    late = rows(status="refunded", updated_at="2026-04-01T00:00:00Z")
    with opened(url) as database:
        database.upsert(pl.concat([rows(), late, rows()]))
        assert database.read().equals(late)
        database.upsert(rows().clear())
        assert database.count() == 1


def test_a_database_that_holds_nothing_gives_the_contracts_columns(url: str) -> None:
    with opened(url) as database:
        assert database.read().schema == SCHEMA


def test_many_rows_are_upserted_in_one_write(url: str) -> None:
    """More than a statement of PostgreSQL may have parameters for."""
    n = pl.int_range(20_000, eager=True)
    many = (
        rows()
        .select(pl.exclude("id"))
        .join(pl.DataFrame({"id": "t" + n.cast(pl.String)}), how="cross")
        .select(SCHEMA.names())
    )
    with opened(url) as database:
        for _ in range(2):  # new, then all of them known
            database.upsert(many)
        assert database.count() == 20_000


def test_a_url_that_names_no_database_is_told_without_its_password() -> None:
    for url in ("mysql://user:secret@host/name", "transactions", "oracle://secret@x"):
        with (
            pytest.raises(SettingsError, match="DATABASE is no URL") as caught,
            opened(url),
        ):
            pass
        assert "secret" not in str(caught.value)
    with (
        pytest.raises(SettingsError, match=r"postgres:\*\*\*@127.0.0.1:9/x can't be used: "),
        opened("postgresql://postgres:secret@127.0.0.1:9/x"),
    ):
        pass
    with (
        pytest.raises(
            SettingsError, match="unable to open database file; correct TRAINYARD_FLOWS_"
        ),
        opened("sqlite:////no/such/folder/file.db"),
    ):
        pass


def test_without_a_url_the_database_is_a_file_in_the_store_or_ends_with_the_run(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        with embedded(f"{tmp_path / 'store'}") as url, opened(url) as database:
            database.upsert(rows())
            assert database.count() == 1
    assert (tmp_path / "store/transactions/transactions.db").is_file()
    with embedded("s3://bucket/store") as url, opened(url) as database:
        file = Path(url.removeprefix("sqlite:///"))
        assert file.is_file()
    assert not file.exists()
