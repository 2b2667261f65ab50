import itertools
import time
from collections.abc import Callable
from email.utils import formatdate

import httpx
import pytest
from pydantic import BaseModel

from flows.platform.api_client import ApiClient, ApiError, ApiUnusableError
from flows.platform.synthetic_api import Answer


class Count(BaseModel):
    """What the API of these tests is asked for."""

    count: int


OK = Answer(b'{"count": 7}')


def client_of(
    api: Callable[[str], Answer], sleep: Callable[[float], None] = lambda _: None, limit: int = 10
) -> ApiClient:
    """A client that waits for nothing: a delay of the API's is a time-out."""

    def respond(request: httpx.Request) -> httpx.Response:
        given = api(request.url.raw_path.decode())
        if given.delay:
            raise httpx.ReadTimeout("too slow", request=request)
        return httpx.Response(given.status, content=given.body, headers=dict(given.headers))

    http = httpx.Client(base_url="http://api", transport=httpx.MockTransport(respond))
    return ApiClient(http, limit, sleep)


def answers(*given: Answer) -> ApiClient:
    """A client whose requests get these answers in turn, the last one for ever."""
    left = itertools.chain(given, itertools.repeat(given[-1]))
    return client_of(lambda path: next(left))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (Answer(status=500), "answered 500"),
        (Answer(status=503), "answered 503"),
        (Answer(status=429), "answered 429"),
        (Answer(delay=1), "no answer in time"),
        (Answer(OK.body[:8]), "sent what can't be read"),
        (Answer(b"[]"), "sent what can't be read"),
        (Answer(b""), "sent what can't be read"),
        (Answer(b'{"error": "\xff"}'), "sent what can't be read"),
    ],
)
def test_a_fault_that_may_pass_is_tried_again_and_counted(fault: Answer, name: str) -> None:
    client = answers(fault, fault, OK)
    assert client.get("/a?b=1", Count) == Count(count=7)
    assert client.faults == {name: 2}
    with pytest.raises(ApiError, match=rf"^http://api/a\?b=1: {name}"):
        answers(fault).get("/a?b=1", Count)


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_refusal_is_told_at_once(status: int) -> None:
    asked: list[str] = []
    client = client_of(lambda path: asked.append(path) or Answer(status=status))  # type: ignore[func-returns-value]
    with pytest.raises(ApiUnusableError, match=f"answered {status}; check the address"):
        client.get("/a", Count)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        (+30, 20, 30),  # a date, so many seconds from now
        (-30, 0, 0),
        # no wait that anybody could understand: the client's own
        ("soon", 0, 0.5),
        ("", 0, 0.5),
        ("-5", 0, 0.5),
    ],
)
def test_an_api_that_asks_to_wait_is_waited_for(
    header: str | int, least: float, most: float
) -> None:
    if isinstance(header, int):
        header = formatdate(time.time() + header, usegmt=True)
    slept: list[float] = []
    left = iter([Answer(status=429, headers={"Retry-After": header}), OK])
    client_of(lambda path: next(left), slept.append).get("/a", Count)
    assert len(slept) == 1
    assert least <= slept[0] <= most


def test_own_waits_grow_and_differ() -> None:
    waits: list[tuple[float, ...]] = []
    for _ in range(50):
        slept: list[float] = []
        with pytest.raises(ApiError):
            client_of(lambda path: Answer(status=500), slept.append).get("/a", Count)
        waits.append(tuple(slept))
    first, second = zip(*waits, strict=True)
    assert max(first) <= 0.5 < max(second) <= 1
    assert len(set(first)) > 40


def test_an_api_that_asks_for_an_hour_is_not_waited_for() -> None:
    client = answers(Answer(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(ApiUnusableError, match="asks to wait 3600 s, and a run waits 60 s at most"):
        client.get("/a", Count)


def test_it_gives_up_after_so_many_failures_in_a_row_and_says_which() -> None:
    error, cut = Answer(status=500), Answer(b"{")
    left = iter([error, error, OK, error, cut, error, cut, error])
    client = client_of(lambda path: next(left), limit=4)
    client.get("/a", Count)
    with pytest.raises(ApiError):
        client.get("/b", Count)
    with pytest.raises(
        ApiUnusableError,
        match=r"^http://api: given up after 4 failures in a row: answered 500 \(2\), sent what "
        r"can't be read \(2\); see whether the API is up",
    ):
        client.get("/b", Count)


def test_an_address_where_nothing_listens_is_told() -> None:
    client = ApiClient(httpx.Client(base_url="http://127.0.0.1:9"), sleep=lambda _: None)
    with pytest.raises(ApiError, match=r"^http://127.0.0.1:9/a: no connection"):
        client.get("/a", Count)
