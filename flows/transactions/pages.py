"""Read all pages of an API whose transactions may change meanwhile."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from flows.platform.api_client import ApiUnusableError

RESTARTS = 5
"""How often reading begins again because the transactions changed."""


class Page(BaseModel):
    """One page, as the API sends it; `snapshot` changes whenever the transactions do."""

    snapshot: str
    page: int
    pages: int
    total: int
    """Transactions on all pages, each counted once."""
    transactions: list[Any]


def pages(fetch: Callable[[int], Page]) -> Iterator[Page]:
    """Every page of one snapshot, in order; begins again if the transactions change meanwhile.

    What came before a change comes once more, so write it by its id.

    Raises:
        ApiUnusableError: they change faster than they can be read, or some are missing.
    """
    found = ""
    for _ in range(1 + RESTARTS):
        seen: set[str] = set()
        first = page = fetch(1)
        while page.snapshot == first.snapshot:
            yield page
            seen |= {identity(each) for each in page.transactions}
            if page.page >= first.pages:
                break
            page = fetch(page.page + 1)
        if page.snapshot != first.snapshot:
            found = "they changed each time"
        elif len(seen) != first.total:
            found = f"it announced {first.total:,} and sent {len(seen):,}"
        else:
            return
    raise ApiUnusableError(
        f"the API's transactions were read {1 + RESTARTS} times: {found}; run again at a calmer "
        "time, or ask who keeps the API"
    )


def identity(transaction: object) -> str:
    """What tells a transaction from others: its id, and without one all that it has."""
    named = transaction.get("id") if isinstance(transaction, dict) else None
    return str(named) if named else repr(transaction)
