import itertools
import json
import time
from email.utils import formatdate

import httpx
import pytest

from flows.platform.synthetic_api import Answer
from flows.transactions.client import ApiClient, ApiError, ApiUnusableError, pages
from tests.flows.transactions.whole_reads import client_of


def page(number: int = 1, pages: int = 1, snapshot: str = "v1", total: int = 1) -> bytes:
    about = {"snapshot": snapshot, "page": number, "pages": pages, "total": total}
    return json.dumps({**about, "transactions": [{"id": f"t{number}"}]}).encode()


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
        (Answer(page()[:20]), "sent no page of transactions"),
        (Answer(b"[]"), "sent no page of transactions"),
        (Answer(b""), "sent no page of transactions"),
        (Answer(b'{"error": "\xff"}'), "sent no page of transactions"),
    ],
)
def test_a_fault_that_may_pass_is_tried_again_and_counted(fault: Answer, name: str) -> None:
    client = answers(fault, fault, Answer(page()))
    assert client.page(1).transactions == [{"id": "t1"}]
    assert client.faults == {name: 2}
    with pytest.raises(ApiError, match=rf"^http://api/transactions\?page=1: {name}"):
        answers(fault).page(1)


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_refusal_is_told_at_once(status: int) -> None:
    asked: list[str] = []
    client = client_of(lambda path: asked.append(path) or Answer(status=status))  # type: ignore[func-returns-value]
    with pytest.raises(ApiUnusableError, match=f"answered {status}; check the address"):
        client.page(1)
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
    left = iter([Answer(status=429, headers={"Retry-After": header}), Answer(page())])
    client_of(lambda path: next(left), slept.append).page(1)
    assert len(slept) == 1
    assert least <= slept[0] <= most


def test_own_waits_grow_and_differ() -> None:
    waits: list[tuple[float, ...]] = []
    for _ in range(50):
        slept: list[float] = []
        with pytest.raises(ApiError):
            client_of(lambda path: Answer(status=500), slept.append).page(1)
        waits.append(tuple(slept))
    first, second = zip(*waits, strict=True)
    assert max(first) <= 0.5 < max(second) <= 1
    assert len(set(first)) > 40


def test_an_api_that_asks_for_an_hour_is_not_waited_for() -> None:
    client = answers(Answer(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(ApiUnusableError, match="asks to wait 3600 s, and a run waits 60 s at most"):
        client.page(1)


def test_it_gives_up_after_so_many_failures_in_a_row_and_says_which() -> None:
    ok, error, cut = Answer(page()), Answer(status=500), Answer(b"{")
    left = iter([error, error, ok, error, cut, error, cut, error])
    client = client_of(lambda path: next(left), limit=4)
    client.page(1)
    with pytest.raises(ApiError):
        client.page(2)
    with pytest.raises(
        ApiUnusableError,
        match=r"^http://api: given up after 4 failures in a row: answered 500 \(2\), sent no page "
        r"of transactions \(2\); see whether the API is up",
    ):
        client.page(2)


def test_an_address_where_nothing_listens_is_told() -> None:
    client = ApiClient("http://127.0.0.1:9", sleep=lambda _: None)
    with pytest.raises(ApiError, match=r"^http://127.0.0.1:9/transactions\?page=1: no connection"):
        client.page(1)


def read(*snapshots: str, total: int = 2) -> list[str]:
    """Read two pages from an API whose answers are of these snapshots, in turn."""
    left = iter(snapshots)
    client = client_of(
        lambda path: Answer(page(int(httpx.URL(path).params["page"]), 2, next(left), total))
    )
    return [f"{each.snapshot} {each.page}" for each in pages(client.page)]


def test_a_change_between_pages_begins_anew() -> None:
    assert read("v1", "v1") == ["v1 1", "v1 2"]
    assert read("v1", "v2", "v2", "v2") == ["v1 1", "v2 1", "v2 2"]


def test_transactions_that_never_rest_or_are_missing_are_told() -> None:
    with pytest.raises(ApiUnusableError, match="read 6 times: they changed each time"):
        read(*(f"v{n}" for n in range(12)))
    with pytest.raises(ApiUnusableError, match="read 6 times: it announced 3 and sent 2"):
        read(*["v1"] * 12, total=3)
