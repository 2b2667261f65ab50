"""Read transactions from an unreliable API, write them to a database, and publish a snapshot."""

from collections import Counter
from functools import partial
from typing import Annotated, Any

import httpx
import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_engine import TaskRunTimeoutError
from pydantic import Field

from flows.platform.api_client import ApiClient, ApiError
from flows.platform.artifact_store import artifact_path, write_parquet
from flows.platform.run_info import current_run, end_killed_attempts
from flows.platform.settings import load_settings
from flows.platform.synthetic_api import api_at
from flows.platform.task_options import RETRIED, WAITS
from flows.transactions.contract import Checked, augment, require_few_broken
from flows.transactions.database import Database, flows_database
from flows.transactions.fake_api import UnreliableApi
from flows.transactions.pages import Page, pages
from flows.transactions.snapshots import Snapshot, write_snapshot

# An address, or the synthetic API of the run itself.
Api = Annotated[str, Field(pattern="^(synthetic|https?://.+)$")]
# A page lives no longer than the run: its second attempt reads the API anew, and writes by id.
PAGE: dict[str, Any] = {"persist_result": False, "cache_policy": NO_CACHE}


@flow(name="transactions-ingest", timeout_seconds=3600, result_serializer="json")
def transactions_ingest(
    api: Api = "synthetic",
    seed: int = 42,
    give_up_after: Annotated[int, Field(ge=1)] = 10,
) -> Snapshot:
    """Read transactions from an API, write them to the database, and publish a snapshot.

    Args:
        api: its address, without `/transactions`; `synthetic` is one of the run's own, with faults.
        seed: of the synthetic API's transactions and faults.
        give_up_after: failed requests in a row.
    """
    end_killed_attempts()
    with (
        api_at(api, lambda: UnreliableApi(seed)) as url,
        httpx.Client(base_url=url, timeout=5) as http,
        flows_database() as stored,
    ):
        client = ApiClient(http, give_up_after)
        broken: dict[str, str] = {}
        for page in pages(partial(fetch, client)):
            checked = augment_data(page)
            write_to_database(stored, checked)
            # page 1 once more: the transactions have changed, and all are read anew
            broken = checked.broken if page.page == 1 else broken | checked.broken
        snapshot = publish_snapshot(stored, broken)
        report_ingest(api, client.faults, broken, snapshot)
    return snapshot


@task(
    task_run_name="call-unreliable-api-{number}",
    **{**RETRIED, "retry_delay_seconds": 5},
    **PAGE,
    timeout_seconds=300,
)
def call_unreliable_api(client: ApiClient, number: int) -> Page:
    """A page of the API. Within each try, the client has its own tries, a second or so apart."""
    return client.get(f"/transactions?page={number}", Page)


@task(task_run_name="augment-data", **PAGE)
def augment_data(page: Page) -> Checked:
    """The page's good transactions with what follows from them, and the broken ones."""
    return augment(page.transactions)


@task(task_run_name="write-to-database", **RETRIED, **PAGE, **WAITS)
def write_to_database(stored: Database, checked: Checked) -> None:
    """All of a page or nothing: what a killed run has written, its next attempt overwrites."""
    stored.upsert(checked.rows)


@task(task_run_name="publish-snapshot", **RETRIED, **PAGE, **WAITS)
def publish_snapshot(stored: Database, broken: dict[str, str]) -> Snapshot:
    """The database's transactions as Parquet, if few were broken; those go to the quarantine."""
    store, run, rows = load_settings().artifact_store, current_run(), stored.read()
    if broken:
        quarantine = artifact_path(store, "runs", run.id, "quarantine", "transactions.parquet")
        table = {"transaction": [*broken], "rule": [*broken.values()]}
        write_parquet(pl.DataFrame(table), quarantine)
        get_run_logger().info("%s broken transactions: %s", len(broken), quarantine)
    require_few_broken(broken, len(rows))
    return write_snapshot(rows, store, run)


@task(task_run_name="report-ingest", **PAGE, **WAITS)
def report_ingest(
    api: str, faults: Counter[str], broken: dict[str, str], snapshot: Snapshot
) -> None:
    """The run's result as a page in Prefect."""
    lines = [f"# {snapshot.rows:,} transactions of {api}", "", f"Snapshot: `{snapshot.uri}`", ""]
    for title, counts in (("quarantined because", Counter(broken.values())), ("fault", faults)):
        lines += [f"| {title} | times |", "|---|---:|"]
        lines += [f"| {what} | {times:,} |" for what, times in counts.most_common()] + [""]
    create_markdown_artifact(key="transactions-ingest-report", markdown="\n".join(lines))


def fetch(client: ApiClient, number: int) -> Page:
    """A page by its task, whose time-out says which page it was."""
    try:
        return call_unreliable_api(client, number)
    except TaskRunTimeoutError as error:
        seconds = call_unreliable_api.timeout_seconds
        fault = f"page {number} took longer than the {seconds:.0f} s that its task has"
        raise ApiError(client.url, fault) from error
