"""One at a time, among all runs of a Prefect server."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

# A holder that is killed keeps its slot until its lease ends, after 300 s.
WAIT_SECONDS = 600


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Run a block while no other run is in a block of the same name.

    Raises:
        prefect.concurrency.sync.AcquireConcurrencySlotTimeoutError: others took too long.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=1)
                )
    # strict: without its limit it would be no lock
    with concurrency(name, timeout_seconds=WAIT_SECONDS, strict=True):
        yield
