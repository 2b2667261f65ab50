"""Read pages of transactions from an HTTP API that fails now and then."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.wait import wait_base

ATTEMPTS = 3
"""Requests for a page, before the task that asked for it fails."""
LONGEST_WAIT = 60.0
"""Seconds that an API may make a run wait."""
RESTARTS = 5
"""How often reading begins again because the transactions changed meanwhile."""


class ApiError(RuntimeError):
    """A page didn't come; another try may get it."""

    def __init__(self, message: str, fault: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fault, self.retry_after = fault, retry_after


class ApiUnusableError(ValueError):
    """No further try helps: the message says what the API did, how often, and what to do."""


class Page(BaseModel):
    """One page, as the API sends it."""

    snapshot: str
    """The same on two pages if nothing changed between them."""
    page: int
    pages: int
    total: int
    """Transactions on all pages, each counted once."""
    transactions: list[Any]


class RetryAfter(wait_base):
    """Wait as long as the API asked for, else as `otherwise` says."""

    def __init__(self, otherwise: wait_base) -> None:
        self._otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked: float | None = getattr(error, "retry_after", None)
        return self._otherwise(retry_state) if asked is None else asked


class ApiClient:
    """Asks for pages, and gives up after so many failures in a row, of whatever pages.

    Args:
        url: of the API, without `/transactions`.
        give_up_after: failed requests in a row.
        timeout: seconds that it waits for an answer.
        transport, sleep: instead of the network and of waiting, for tests.
    """

    def __init__(
        self,
        url: str,
        give_up_after: int = 10,
        timeout: float = 5.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout, transport=transport)
        self.url, self._give_up_after = url, give_up_after
        self._in_a_row: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        """What went wrong, and how often."""
        self._retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=RetryAfter(wait_random_exponential(0.5, max=10)),
            retry=retry_if_exception_type(ApiError),
            sleep=sleep,
            reraise=True,
        )

    def close(self) -> None:
        self._http.close()

    def page(self, number: int) -> Page:
        """Ask for a page, three times if need be.

        Raises:
            ApiError: it didn't come.
            ApiUnusableError: the API refuses, asks for a wait that is too long, or has failed too
                often in a row.
        """
        return self._retrying(self._counted, number)

    def _counted(self, number: int) -> Page:
        try:
            page = self._ask(number)
        except ApiError as error:
            self.faults[error.fault] += 1
            self._in_a_row[error.fault] += 1
            if (failed := self._in_a_row.total()) >= self._give_up_after:
                told = ", ".join(f"{each} ({n})" for each, n in self._in_a_row.most_common())
                raise ApiUnusableError(
                    f"{self.url}: given up after {failed} failures in a row: {told}; "
                    "see whether the API is up, then run again"
                ) from error
            raise
        self._in_a_row.clear()
        return page

    def _ask(self, number: int) -> Page:
        what = f"{self.url}/transactions?page={number}"

        def failed(fault: str, retry_after: float | None = None) -> ApiError:
            return ApiError(f"{what}: {fault}", fault, retry_after)

        try:
            answer = self._http.get("/transactions", params={"page": number})
        except httpx.TimeoutException as error:
            raise failed("no answer in time") from error
        except httpx.TransportError as error:
            raise failed(f"no connection ({error})") from error
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            wait = _seconds(answer.headers.get("Retry-After", ""))
            if wait is not None and wait > LONGEST_WAIT:
                raise ApiUnusableError(
                    f"{what}: answered {answer.status_code} and asks to wait {wait:.0f} s, and a "
                    f"run waits {LONGEST_WAIT:.0f} s at most; run again after that"
                )
            raise failed(f"answered {answer.status_code}", wait)
        if answer.status_code != 200:
            raise ApiUnusableError(
                f"{what}: answered {answer.status_code}; check the address and the right to read it"
            )
        try:
            return Page.model_validate_json(answer.content)
        except ValidationError as error:
            raise failed("sent no page of transactions") from error


def pages(fetch: Callable[[int], Page]) -> Iterator[Page]:
    """Every page of one snapshot, in order; begins again if the transactions change meanwhile.

    What came before a change comes once more, so write it by its id.

    Raises:
        ApiUnusableError: they change faster than they can be read, or some are missing.
    """
    found = ""
    for _ in range(1 + RESTARTS):
        seen: set[object] = set()
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


def _seconds(retry_after: str) -> float | None:
    """Return what a Retry-After header asks for, in seconds from now; None if it says nothing."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
