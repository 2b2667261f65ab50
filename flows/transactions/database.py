"""The database of transactions: SQLite in a file, or PostgreSQL."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flows.platform.artifact_store import artifact_path
from flows.platform.settings import DATABASE, SettingsError
from flows.transactions.contract import Transactions

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
TYPES: dict[object, Any] = {
    pl.String: sa.String,
    pl.Float64: sa.Double,
    pl.Int64: sa.BigInteger,
    pl.Boolean: sa.Boolean,
    pl.Datetime: sa.DateTime,
}
SCHEMA = Transactions.create_empty().schema
TABLE = sa.Table(
    "transactions",
    sa.MetaData(),
    *(
        sa.Column(name, TYPES[dtype.base_type()], primary_key=name == "id", nullable=False)
        for name, dtype in SCHEMA.items()
    ),
)
ROWS_AT_ONCE = 20_000


class Database:
    """The table `transactions`, which is made if it isn't there."""

    def __init__(self, engine: AsyncEngine, runner: asyncio.Runner) -> None:
        self._engine, self._runner = engine, runner

    def upsert(self, rows: pl.DataFrame) -> None:
        """Write all of `rows` or nothing; over what has the same id, unless that is newer.

        Args:
            rows: as the contract says; an id may come twice.
        """
        insert = INSERTS[self._engine.dialect.name](TABLE)
        written = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in SCHEMA if name != "id"},
            where=insert.excluded.updated_at >= TABLE.c.updated_at,
        )

        async def write() -> None:
            async with self._engine.begin() as connection:
                await connection.execute(written, rows.to_dicts())

        if not rows.is_empty():
            self._runner.run(write())

    def count(self) -> int:
        async def count() -> int:
            async with self._engine.connect() as connection:
                found = await connection.scalar(sa.select(sa.func.count()).select_from(TABLE))
                return found or 0

        return self._runner.run(count())

    def read(self) -> pl.DataFrame:
        """Return all transactions in the order of their ids; the types are the contract's."""

        async def read() -> list[pl.DataFrame]:
            async with self._engine.connect() as connection:
                found = await connection.stream(sa.select(TABLE).order_by(TABLE.c.id))
                return [
                    pl.DataFrame([tuple(row) for row in rows], SCHEMA, orient="row")
                    async for rows in found.partitions(ROWS_AT_ONCE)
                ]

        # databases differ in how they order text
        return pl.concat([pl.DataFrame(schema=SCHEMA), *self._runner.run(read())]).sort("id")


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
    with asyncio.Runner() as runner:
        engine = create_async_engine(address, connect_args={"timeout": 60})
        try:
            try:
                runner.run(_make_table(engine))
            except (OSError, sa.exc.DBAPIError) as error:
                fault = getattr(error, "orig", error)
                raise SettingsError(
                    f"the database {address} can't be used: {fault}; correct {DATABASE}, or see "
                    "whether it is up"
                ) from error
            yield Database(engine, runner)
        finally:
            runner.run(engine.dispose())


@contextmanager
def embedded(store: str) -> Iterator[str]:
    """A SQLite file in the artifact store's folder; S3 can't hold one: there it ends with the run.

    Gives its URL.
    """
    if store.startswith("s3://"):
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/transactions.db"
    else:
        path = Path(artifact_path(store, "transactions", "transactions.db").path).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        yield f"sqlite:///{path}"


async def _make_table(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(TABLE.metadata.create_all)
