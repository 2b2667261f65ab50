"""Waits until something is so."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

T = TypeVar("T")


def wait_until(
    done: Callable[[T], object],
    ask: Callable[[], T],
    *,
    seconds: float,
    every: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
    meanwhile: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Ask again until the answer is `done` or the time is up; gives, or raises, the last answer.

    Args:
        meanwhile: errors that are no answer yet.
    """
    return Retrying(
        retry=retry_if_result(lambda answer: not done(answer)) | retry_if_exception_type(meanwhile),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(every),
        sleep=sleep,
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )(ask)
