import time

import httpx
import pytest

from flows.platform.synthetic_api import Answer, api_at, serving


def test_it_answers_on_loopback_until_the_block_ends() -> None:
    with serving(lambda path: Answer(path.encode(), 503, {"Retry-After": "3"})) as url:
        assert url.startswith("http://127.0.0.1:")
        answer = httpx.get(f"{url}/a?b=c")
    assert (answer.status_code, answer.text) == (503, "/a?b=c")
    assert answer.headers["Retry-After"] == "3"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/a")


def test_an_answer_that_nobody_waits_for_keeps_nothing_from_ending() -> None:
    start = time.monotonic()
    with serving(lambda path: Answer(delay=30)) as url, pytest.raises(httpx.ReadTimeout):
        httpx.get(url, timeout=0.2)
    assert time.monotonic() - start < 5


def test_an_api_of_others_is_taken_as_it_is_and_a_synthetic_one_is_up_for_the_block() -> None:
    with api_at("https://host/v1/", lambda: pytest.fail("it isn't wanted")) as url:
        assert url == "https://host/v1"
    with api_at("synthetic", lambda: lambda path: Answer(b"here")) as url:
        assert httpx.get(url).text == "here"
