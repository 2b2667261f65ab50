"""One at a time, among all runs of a Prefect server."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

# A holder that is killed keeps its slot until its lease ends; a living one renews it.
LEASE_SECONDS = 60  # the shortest that Prefect grants
WAIT_SECONDS = 600


class LockError(RuntimeError):
    """There is no such lock: the message says what makes it."""


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Run a block while no other run is in a block of the same name.

    Raises:
        LockError: Prefect has no limit of this name, or one that isn't 1.
        prefect.concurrency.sync.AcquireConcurrencySlotTimeoutError: others took too long.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            raise LockError(
                f"Prefect has no concurrency limit {name!r}: `make deploy` makes it"
            ) from None
    if limit.limit != 1 or not limit.active:
        raise LockError(
            f"Prefect's concurrency limit {name!r} lets {limit.limit} in"
            f"{'' if limit.active else ' and is off'}, so it is no lock: `make deploy` mends it"
        )
    # strict: without its limit it would be no lock
    with concurrency(name, timeout_seconds=WAIT_SECONDS, strict=True, lease_duration=LEASE_SECONDS):
        yield
