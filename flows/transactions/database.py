"""The database of transactions: SQLite in a file, or PostgreSQL."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flows.platform.artifact_store import artifact_path
from flows.platform.settings import DATABASE, SettingsError, load_settings
from flows.transactions.contract import Transactions
from flows.transactions.snapshots import last_snapshot, read_snapshot

# of those that Prefect brings along, which are async
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
TYPES = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLite takes them too
SCHEMA = Transactions.create_empty().schema
TABLE = sa.Table(
    "transactions",
    sa.MetaData(),
    *Transactions.to_sqlalchemy_columns(TYPES),
    sa.PrimaryKeyConstraint("id"),
)
Found = TypeVar("Found")


class Database:
    """The table `transactions`, which is made if it isn't there."""

    def __init__(self, engine: AsyncEngine, runner: asyncio.Runner) -> None:
        self._engine, self._runner = engine, runner
        try:
            self._transact(TABLE.metadata.create_all)
        except (OSError, sa.exc.DBAPIError) as error:
            fault = getattr(error, "orig", error)
            raise SettingsError(
                f"the database {engine.url} can't be used: {fault}; correct {DATABASE}, or see "
                "whether it is up"
            ) from error

    def _transact(self, work: Callable[[sa.Connection], Found]) -> Found:
        async def transact() -> Found:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)

        return self._runner.run(transact())

    def upsert(self, rows: pl.DataFrame) -> None:
        """Write all rows or none, over what has the same id unless that is newer."""
        insert = INSERTS[self._engine.dialect.name](TABLE)
        written = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in SCHEMA if name != "id"},
            where=insert.excluded.updated_at >= TABLE.c.updated_at,
        )
        if not rows.is_empty():
            self._transact(lambda connection: connection.execute(written, rows.to_dicts()))

    def count(self) -> int:
        count = sa.select(sa.func.count()).select_from(TABLE)
        return self._transact(lambda connection: connection.execute(count).scalar_one())

    def read(self) -> pl.DataFrame:
        """All transactions in the order of their ids."""
        return self._transact(
            lambda connection: pl.read_database(
                sa.select(TABLE), connection, schema_overrides=SCHEMA
            )
        ).sort("id")


@contextmanager
def flows_database() -> Iterator[Database]:
    """The database of the settings, else SQLite. One that is new has the last snapshot's rows."""
    settings = load_settings()
    with ExitStack() as stack:
        url = settings.database or stack.enter_context(embedded(settings.artifact_store))
        database = stack.enter_context(opened(url))
        last = last_snapshot(settings.artifact_store)
        if last and not database.count():
            database.upsert(read_snapshot(last)[1])
        yield database


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a database by its URL, such as `postgresql://user:password@host/name`.

    Raises:
        SettingsError: the URL is none of SQLite or PostgreSQL, or the database lets nobody in.
    """
    try:
        address = sa.make_url(url)
        address = address.set(drivername=DRIVERS[address.get_backend_name()])
    except (sa.exc.ArgumentError, KeyError):
        raise SettingsError(
            f"{DATABASE} is no URL of a database: write postgresql://user:password@host/name or "
            "sqlite:////folder/file"
        ) from None
    engine = create_async_engine(address, connect_args={"timeout": 60})
    with asyncio.Runner() as runner:
        try:
            yield Database(engine, runner)
        finally:
            runner.run(engine.dispose())


@contextmanager
def embedded(store: str) -> Iterator[str]:
    """The URL of a SQLite file in the store's folder; on S3, of one that ends with the run."""
    with tempfile.TemporaryDirectory() as folder:
        if not store.startswith("s3://"):
            folder = artifact_path(store, "transactions").path
        file = Path(folder, "transactions.db").resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        yield f"sqlite:///{file}"
