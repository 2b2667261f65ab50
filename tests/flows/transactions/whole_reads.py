"""What tests of transactions share: a small API, and a whole read of one."""

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from flows.platform.api_client import ApiError
from flows.transactions.contract import augment
from flows.transactions.database import Database
from flows.transactions.fake_api import UnreliableApi
from flows.transactions.pages import Page, pages
from tests.flows.platform.test_api_client import client_of


def small_api(seed: int) -> UnreliableApi:
    return UnreliableApi(seed, transactions=300, page_size=50)


def ingest(api: UnreliableApi, database: Database) -> None:
    """What the flow does, without Prefect: its tasks' retries too."""
    again = Retrying(stop=stop_after_attempt(4), retry=retry_if_exception_type(ApiError))
    client = client_of(api)
    for page in pages(lambda number: again(client.get, f"/transactions?page={number}", Page)):
        database.upsert(augment(page.transactions).rows)
