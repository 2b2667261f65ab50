"""Prefect's server on SQLite: what a transaction has read is still so when it writes."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration

import trainyard.prefect.patches.sqlite_messaging  # noqa: F401  what a server does at its start

READ = sa.text("SELECT value FROM counter")
ADD = sa.text("UPDATE counter SET value = value + 1")


async def _two_that_read_before_they_write(url: str) -> int:
    database = AioSqliteConfiguration(connection_url=url)
    engine = await database.engine()
    has_read = asyncio.Event()

    async def add(before: asyncio.Event | None, pause: float) -> None:
        if before:
            await before.wait()
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(READ)
            has_read.set()
            await asyncio.sleep(pause)  # as long as the other one needs to write
            await session.execute(ADD)

    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    await asyncio.gather(add(None, pause=0.5), add(has_read, pause=0))
    async with engine.connect() as connection:
        (value,) = (await connection.execute(READ)).one()
    await engine.dispose()
    return int(value)


async def _what_others_read_meanwhile(url: str) -> list[int]:
    database = AioSqliteConfiguration(connection_url=url)
    engine = await database.engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    found = []
    async with await database.session(engine) as session, database.begin_transaction(session):
        await session.execute(ADD)
        async with await database.session(engine) as plain:
            found += (await plain.execute(READ)).scalars().all()
        async with await database.session(engine) as inner, database.begin_transaction(inner):
            found += (await inner.execute(READ)).scalars().all()
    await engine.dispose()
    return found


@pytest.mark.timeout(30)  # they would wait for 60 s, each for the other
def test_what_reads_within_a_transaction_does_not_wait_for_its_end(tmp_path: Path) -> None:
    """As where a work queue is paused: Prefect asks for its pool on a connection of its own."""
    url = f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
    assert asyncio.run(_what_others_read_meanwhile(url)) == [0, 0]


def test_two_transactions_that_read_and_then_write_take_turns(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
    assert asyncio.run(_two_that_read_before_they_write(url)) == 2
