"""What tests of transactions share: an API without a network, and a whole read of it."""

from collections.abc import Callable
from contextlib import closing

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from flows.platform.synthetic_api import Answer
from flows.transactions.client import ApiClient, ApiError, pages
from flows.transactions.contract import augment
from flows.transactions.database import Database
from flows.transactions.fake_api import UnreliableApi


def small_api(seed: int) -> UnreliableApi:
    return UnreliableApi(seed, transactions=300, page_size=50)


def client_of(
    api: Callable[[str], Answer], sleep: Callable[[float], None] = lambda _: None, limit: int = 10
) -> ApiClient:
    """A client that waits for nothing: a delay of the API's is a time-out."""

    def respond(request: httpx.Request) -> httpx.Response:
        given = api(request.url.raw_path.decode())
        if given.delay:
            raise httpx.ReadTimeout("too slow", request=request)
        return httpx.Response(given.status, content=given.body, headers=dict(given.headers))

    transport = httpx.MockTransport(respond)
    return ApiClient("http://api", limit, transport=transport, sleep=sleep)


def ingest(api: UnreliableApi, database: Database) -> None:
    """What the flow does, without Prefect: its tasks' retries too."""
    again = Retrying(stop=stop_after_attempt(4), retry=retry_if_exception_type(ApiError))
    with closing(client_of(api)) as client:
        for page in pages(lambda number: again(client.page, number)):
            database.upsert(augment(page.transactions).rows)
