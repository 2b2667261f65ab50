"""Locks on a real server: what isn't one is refused."""

import uuid

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from flows.platform.locks import LockError, exclusive

pytestmark = pytest.mark.server


def test_a_limit_that_is_not_there_is_no_lock(prefect_server: str) -> None:
    said = "no concurrency limit 'nobodys': `make deploy` makes it"
    with pytest.raises(LockError, match=said), exclusive("nobodys"):
        raise AssertionError("let in")


@pytest.mark.parametrize(("limit", "active"), [(2, True), (0, True), (1, False)])
def test_a_limit_that_lets_others_in_is_no_lock(
    prefect_server: str, limit: int, active: bool
) -> None:
    name = f"lock-{uuid.uuid4().hex}"
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=limit, active=active)
        )
    said = "so it is no lock: `make deploy` mends it"
    with pytest.raises(LockError, match=said), exclusive(name):
        raise AssertionError("let in")
