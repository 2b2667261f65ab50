"""Leases in the database of Prefect's server: what Prefect's own storage does, and kept.

That a run outlives the server that let it begin is a drill of the rehearsal, on PostgreSQL.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.server.concurrency.lease_storage import ConcurrencyLeaseStorage as LeaseStorage
from prefect.server.concurrency.lease_storage import ConcurrencyLimitLeaseMetadata
from prefect.server.concurrency.lease_storage.memory import (
    ConcurrencyLeaseStorage as LeasesInMemory,
)
from prefect.server.database import provide_database_interface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from prefect.types._concurrency import ConcurrencyLeaseHolder

from trainyard.prefect.patches.lease_storage import ConcurrencyLeaseStorage

pytestmark = pytest.mark.server  # its database takes seconds to make

MINUTE = timedelta(minutes=1)
RUN = ConcurrencyLeaseHolder(type="flow_run", id=uuid.uuid4())
ONE_SLOT = ConcurrencyLimitLeaseMetadata(slots=1, holder=RUN)

OnDatabase = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture
def on_database(tmp_path: Path) -> Iterator[OnDatabase]:
    def run(steps: Callable[[], Awaitable[None]]) -> None:
        async def server() -> None:
            database = provide_database_interface()
            await database.create_db()
            await steps()
            await (await database.engine()).dispose()

        asyncio.run(server())

    url = f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}):
        yield run


@pytest.mark.parametrize("storage", [ConcurrencyLeaseStorage, LeasesInMemory])
def test_a_lease_holds_until_its_time_or_its_end(
    storage: type[LeaseStorage], on_database: OnDatabase
) -> None:
    async def steps() -> None:
        leases, limit = storage(), uuid.uuid4()
        lease = await leases.create_lease([limit], MINUTE, ONE_SLOT)
        assert await leases.read_lease(lease.id) == lease
        assert await leases.read_active_lease_ids() == [lease.id]
        assert await leases.read_active_lease_ids(offset=1) == []
        assert await leases.list_holders_for_limit(limit) == [(lease.id, RUN)]
        assert await leases.list_holders_for_limit(uuid.uuid4()) == []

        assert await leases.renew_lease(lease.id, -MINUTE)
        assert await leases.read_active_lease_ids() == []
        assert await leases.read_expired_lease_ids() == [lease.id]
        assert await leases.list_holders_for_limit(limit) == []

        assert await leases.renew_lease(lease.id, MINUTE)
        assert await leases.read_expired_lease_ids() == []
        await leases.revoke_lease(lease.id)
        assert await leases.read_lease(lease.id) is None
        assert not await leases.renew_lease(lease.id, MINUTE)

    on_database(steps)


def test_the_next_server_knows_the_leases_of_the_one_before(on_database: OnDatabase) -> None:
    kept = []

    async def one_server() -> None:
        kept.append(await ConcurrencyLeaseStorage().create_lease([uuid.uuid4()], MINUTE, ONE_SLOT))

    async def the_next() -> None:
        (lease,) = kept
        assert await ConcurrencyLeaseStorage().read_lease(lease.id) == lease
        assert await ConcurrencyLeaseStorage().renew_lease(lease.id, MINUTE)

    on_database(one_server)
    on_database(the_next)
