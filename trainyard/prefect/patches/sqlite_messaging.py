"""What makes Prefect's server dependable on SQLite, as on a laptop: transactions take turns.

Prefect begins most of them DEFERRED. SQLite lets such a one read, and refuses its first write at
once, whatever the timeout, if another has written meanwhile. The server then drops the event that
it was at (a heartbeat, or the crash after which a run was to start again), and at times stands
still for a minute. IMMEDIATE ones wait before they read (https://sqlite.org/lang_transaction.html).

A server imports this module where PREFECT_SERVER_EVENTS_MESSAGING_BROKER names it, the one door
that Prefect leaves open for code of ours; the broker is Prefect's own. On PostgreSQL nothing of
this happens.

This module goes when AioSqliteConfiguration.begin_transaction (server/database/configurations.py)
begins IMMEDIATE by default: as of 3.9.1 some callers ask for it, such as automations' triggers
(server/events/triggers.py), and a hundred others don't.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.utilities.messaging.memory import (
    Consumer,
    Publisher,
    break_topic,
    ephemeral_subscription,
)
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

__all__ = ["Consumer", "Publisher", "break_topic", "ephemeral_subscription"]

_begin = AioSqliteConfiguration.begin_transaction


@asynccontextmanager
async def _begin_immediate(
    self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncGenerator[AsyncSessionTransaction, None]:
    if SQLITE_BEGIN_MODE.get():  # within another transaction, whose end it can't wait for
        async with _begin(self, session, with_for_update) as transaction:
            yield transaction
        return
    # what Prefect itself does where it means to write at once
    async with _begin(self, session, with_for_update=True) as transaction:
        await session.connection()  # waits for its turn
        within = SQLITE_BEGIN_MODE.set("DEFERRED")  # others that begin before it ends only read
        try:
            yield transaction
        finally:
            SQLITE_BEGIN_MODE.reset(within)


AioSqliteConfiguration.begin_transaction = _begin_immediate  # type: ignore[method-assign]
