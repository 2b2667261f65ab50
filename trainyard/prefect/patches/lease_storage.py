"""Who holds a concurrency slot, kept in the database of Prefect's server.

Prefect keeps it in the server's memory. One that is replaced forgets it: a run that waits for its
machine is then Cancelled, and one that runs ends at its next renewal. Of Prefect's other storages
one is a disk, which a Fargate task doesn't keep, and one is Redis. A server that
PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE tells of this module keeps each lease as a row of Prefect's
own table of configurations.

This module goes when Prefect has a storage of leases in its database, or the stack has Redis
(as of 3.9.1: `prefect/server/concurrency/lease_storage` has memory and filesystem).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server.concurrency.lease_storage import ConcurrencyLeaseStorage as LeaseStorage
from prefect.server.concurrency.lease_storage import ConcurrencyLimitLeaseMetadata
from prefect.server.database import provide_database_interface
from prefect.server.utilities.leasing import ResourceLease
from prefect.types._concurrency import ConcurrencyLeaseHolder
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

Lease = ResourceLease[ConcurrencyLimitLeaseMetadata]
LEASE = TypeAdapter(Lease)
PREFIX = "trainyard.lease."


class ConcurrencyLeaseStorage(LeaseStorage):
    """What Prefect asks of a storage of leases, as its module `memory` does it."""

    async def create_lease(
        self,
        resource_ids: list[UUID],
        ttl: timedelta,
        metadata: ConcurrencyLimitLeaseMetadata | None = None,
    ) -> Lease:
        lease = Lease(resource_ids, datetime.now(UTC) + ttl, metadata=metadata)
        async with _rows() as (session, row):
            session.add(row(key=f"{PREFIX}{lease.id}", value=LEASE.dump_python(lease, mode="json")))
        return lease

    async def read_lease(self, lease_id: UUID) -> Lease | None:
        async with _rows() as (session, row):
            found = await session.scalar(sa.select(row).where(row.key == f"{PREFIX}{lease_id}"))
            return LEASE.validate_python(found.value) if found else None

    async def renew_lease(self, lease_id: UUID, ttl: timedelta) -> bool:
        """Prolong a lease; False where there is none."""
        async with _rows() as (session, row):
            wanted = sa.select(row).where(row.key == f"{PREFIX}{lease_id}").with_for_update()
            if found := await session.scalar(wanted):
                expiration = datetime.now(UTC) + ttl
                found.value = {**found.value, "expiration": expiration.isoformat()}
            return bool(found)

    async def revoke_lease(self, lease_id: UUID) -> None:
        async with _rows() as (session, row):
            await session.execute(sa.delete(row).where(row.key == f"{PREFIX}{lease_id}"))

    async def read_active_lease_ids(self, limit: int = 100, offset: int = 0) -> list[UUID]:
        now = datetime.now(UTC)
        active = [lease.id for lease in await self._all() if lease.expiration > now]
        return active[offset : offset + limit]

    async def read_expired_lease_ids(self, limit: int = 100) -> list[UUID]:
        now = datetime.now(UTC)
        return [lease.id for lease in await self._all() if lease.expiration < now][:limit]

    async def list_holders_for_limit(
        self, limit_id: UUID
    ) -> list[tuple[UUID, ConcurrencyLeaseHolder]]:
        now = datetime.now(UTC)
        return [
            (lease.id, lease.metadata.holder)
            for lease in await self._all()
            if limit_id in lease.resource_ids
            and lease.expiration > now
            and lease.metadata
            and lease.metadata.holder
        ]

    async def _all(self) -> list[Lease]:
        """Every lease: as many as runs that a limit has let begin and that haven't ended."""
        async with _rows() as (session, row):
            found = await session.scalars(sa.select(row).where(row.key.startswith(PREFIX)))
            return [LEASE.validate_python(each.value) for each in found]


@asynccontextmanager
async def _rows() -> AsyncIterator[tuple[AsyncSession, Any]]:
    """A transaction, and the class of the table's rows."""
    db = provide_database_interface()
    async with db.session_context(begin_transaction=True) as session:
        yield session, db.Configuration
