"""Ask an HTTP API that fails now and then: again where that may help, and no longer than that."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

ATTEMPTS = 3
"""Requests for the same, before the task that asked for it fails."""
OWN_WAIT = wait_random_exponential(0.5, max=10)
LONGEST_WAIT = 60.0
"""Seconds that an API may make a run wait."""
Content = TypeVar("Content", bound=BaseModel)


class ApiError(RuntimeError):
    """An answer didn't come; another try may get it, after the seconds that the API asks for."""

    def __init__(self, place: str, fault: str, retry_after: float | None = None) -> None:
        super().__init__(f"{place}: {fault}")
        self.fault, self.retry_after = fault, retry_after


class ApiUnusableError(ValueError):
    """No further try helps: the message says what the API did, how often, and what to do."""


@dataclass
class ApiClient:
    """Asks an API, and gives up after so many failures in a row, of whatever requests."""

    http: httpx.Client
    """With the API's address and a time-out."""
    give_up_after: int = 10
    sleep: Callable[[float], None] = time.sleep
    faults: Counter[str] = field(default_factory=Counter, init=False)
    """What went wrong, and how often."""
    _in_a_row: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def get(self, path: str, content: type[Content]) -> Content:
        """Ask for JSON of a form, three times if need be.

        Raises:
            ApiError: it didn't come.
            ApiUnusableError: the API refuses, asks for a wait that is too long, or has failed too
                often in a row.
        """
        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait,
            retry=retry_if_exception_type(ApiError),
            sleep=self.sleep,
            reraise=True,
        )
        answer: Content = attempts(self._counted, path, content)
        return answer

    def _counted(self, path: str, content: type[Content]) -> Content:
        try:
            answer = self._ask(path, content)
        except ApiError as error:
            self.faults[error.fault] += 1
            self._in_a_row[error.fault] += 1
            if (failed := self._in_a_row.total()) < self.give_up_after:
                raise
            told = ", ".join(f"{each} ({n})" for each, n in self._in_a_row.most_common())
            raise ApiUnusableError(
                f"{self.url}: given up after {failed} failures in a row: {told}; "
                "see whether the API is up, then run again"
            ) from error
        self._in_a_row.clear()
        return answer

    def _ask(self, path: str, content: type[Content]) -> Content:
        place = f"{self.url}{path}"
        try:
            answer = self.http.get(path)
            if answer.status_code == 200:
                return content.model_validate_json(answer.content)
        except httpx.TimeoutException as error:
            raise ApiError(place, "no answer in time") from error
        except httpx.TransportError as error:
            raise ApiError(place, f"no connection ({error})") from error
        except ValidationError as error:
            raise ApiError(place, "sent what can't be read") from error
        said = f"answered {answer.status_code}"
        if answer.status_code not in (408, 429) and answer.status_code < 500:
            raise ApiUnusableError(f"{place}: {said}; check the address and the right to read it")
        wait = _seconds(answer.headers.get("Retry-After", ""))
        if wait is not None and wait > LONGEST_WAIT:
            raise ApiUnusableError(
                f"{place}: {said} and asks to wait {wait:.0f} s, and a run waits "
                f"{LONGEST_WAIT:.0f} s at most; run again after that"
            )
        raise ApiError(place, said, wait)


def _wait(tried: RetryCallState) -> float:
    """As long as the API asked for, else longer each time, and never the same."""
    error = tried.outcome.exception() if tried.outcome else None
    asked = error.retry_after if isinstance(error, ApiError) else None
    return OWN_WAIT(tried) if asked is None else asked


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After header asks for, in seconds from now; None if it says nothing."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
