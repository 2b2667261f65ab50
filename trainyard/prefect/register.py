"""Tells a Prefect server about a stack: StackOutputs -> work pool, blocks, limits, automations.

A second run changes nothing and says so.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import BlockDocument
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import LocalFileSystem
from prefect.settings import PREFECT_API_URL, temporary_settings

from trainyard.contract.outputs import WEBHOOK, StackOutputs
from trainyard.prefect.automations import automations
from trainyard.prefect.work_pool import base_job_template, result_block

NOTIFICATIONS = "custom-webhook/trainyard-notifications"

# How many runs may use something at once, over all deployments.
CONCURRENCY_LIMITS = {
    "promotion": 1,  # the lock of whoever moves a model's aliases: flows/lifecycle/registry.py
    "tlc-downloads": 2,  # TLC's site is public: a guest doesn't hammer it
}


class RegisterError(Exception):
    """The stack cannot be registered; the message says why and what to do."""


@dataclass(frozen=True)
class Change:
    """What became of one object."""

    kind: str
    name: str
    result: Literal["created", "updated", "removed", "unchanged", "not set"]


def register(outputs: StackOutputs) -> list[Change]:
    """Make the stack's Prefect server match `outputs`; safe to repeat.

    Raises:
        RegisterError: the server cannot be reached or refuses.
    """
    with temporary_settings({PREFECT_API_URL: outputs.prefect_api_url}):
        try:
            with get_client(sync_client=True) as client:
                return list(_changes(client, outputs))
        except httpx.HTTPStatusError as error:
            # Prefect repeats what it was sent.
            said = error.response.text.replace(os.environ.get(WEBHOOK) or " ", " ")
            raise RegisterError(
                f"Prefect at {outputs.prefect_api_url} refuses"
                f" {error.request.method} {error.request.url.path}:"
                f" {error.response.status_code} {said[:500]}"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegisterError(
                f"no Prefect server answers at {outputs.prefect_api_url}"
                f" ({error or type(error).__name__}): is the stack up?"
            ) from error


def summary(changes: list[Change]) -> str:
    counts = Counter(change.result for change in changes)
    told = (f"{counts[each]} {each}" for each in ("created", "updated", "removed") if counts[each])
    return ", ".join(told) or "nothing to change"


def _changes(client: SyncPrefectClient, outputs: StackOutputs) -> Iterator[Change]:
    # The pool comes last: once it is there, a worker takes runs, and they need the rest.
    yield _block(client, result_block(outputs), _result_block(outputs))
    for name, limit in CONCURRENCY_LIMITS.items():
        yield _concurrency_limit(client, name, limit)
    yield _notifications(client)
    yield from register_automations(client, outputs.work_pool.name)
    yield _work_pool(client, outputs)


def _block(client: SyncPrefectClient, block: str, wanted: Block) -> Change:
    document, name = _document(client, block), block.split("/")[1]
    if document and type(wanted)(**document.data) == wanted:
        return Change("block", name, "unchanged")
    wanted.save(name, overwrite=True)
    return Change("block", name, "updated" if document else "created")


def _document(client: SyncPrefectClient, block: str) -> BlockDocument | None:
    slug, name = block.split("/")
    try:
        return client.read_block_document_by_name(name, slug)
    except ObjectNotFound:
        return None


def _notifications(client: SyncPrefectClient) -> Change:
    url = os.environ.get(WEBHOOK)
    if not url:
        # One that an earlier register or somebody by hand has made goes on being used.
        there = _document(client, NOTIFICATIONS)
        return Change("notifications", WEBHOOK, "unchanged" if there else "not set")
    wanted = CustomWebhookNotificationBlock.model_validate(
        {
            "name": "Trainyard",
            "url": "{{url}}",
            "json_data": {"text": "{{body}}"},  # as Slack takes it, and most others
            "secrets": {"url": url},
        }
    )
    return _block(client, NOTIFICATIONS, wanted)


def register_automations(
    client: SyncPrefectClient, work_pool: str, **times: Any
) -> Iterator[Change]:
    """Make a work pool's automations what they should be; `times` as `automations` takes them."""
    owner = f"trainyard.work-pool.{work_pool}"
    owned: dict[str, Automation] = {}
    for each in client.read_resource_related_automations(owner):
        if each.name in owned:  # made by two registers at once
            client.delete_automation(each.id)
            yield Change("automation", each.name, "removed")
        else:
            owned[each.name] = each
    notifications = _document(client, NOTIFICATIONS)
    for wanted in automations(work_pool, notifications.id if notifications else None, **times):
        existing = owned.pop(wanted.name, None)
        if existing is None:
            client.create_automation(wanted.model_copy(update={"owner_resource": owner}))
            yield Change("automation", wanted.name, "created")
        elif existing.model_dump(exclude={"id"}) == wanted.model_dump():
            yield Change("automation", wanted.name, "unchanged")
        else:
            # All of it, said outright: what isn't said stays as it is.
            whole = AutomationCore.model_validate(wanted.model_dump(exclude={"owner_resource"}))
            client.update_automation(existing.id, whole)
            yield Change("automation", wanted.name, "updated")
    for name, gone in owned.items():
        client.delete_automation(gone.id)
        yield Change("automation", name, "removed")


def _result_block(outputs: StackOutputs) -> Block:
    folder = f"{outputs.artifact_store}/results"
    if not folder.startswith("s3://"):
        return LocalFileSystem(basepath=folder)
    # Only here, because boto3 takes a second that a laptop's stack would wait for.
    from prefect_aws import S3Bucket

    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    # Without credentials: on AWS a run has those of its role.
    return S3Bucket(bucket_name=bucket, bucket_folder=prefix)


def _concurrency_limit(client: SyncPrefectClient, name: str, limit: int) -> Change:
    try:
        existing = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
        return Change("concurrency limit", name, "created")
    if existing.limit == limit and existing.active:
        return Change("concurrency limit", name, "unchanged")
    client.update_global_concurrency_limit(
        name, GlobalConcurrencyLimitUpdate(limit=limit, active=True)
    )
    return Change("concurrency limit", name, "updated")


def _work_pool(client: SyncPrefectClient, outputs: StackOutputs) -> Change:
    name, template = outputs.work_pool.name, base_job_template(outputs)
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=name, type=outputs.work_pool.type, base_job_template=template)
        )
        return Change("work pool", name, "created")
    if pool.type != outputs.work_pool.type:
        raise RegisterError(
            f"there is already a work pool {name!r}, of type {pool.type!r}, and a pool's type"
            f" can't be changed: `prefect work-pool delete {name}`, or name this stack's otherwise"
        )
    if pool.base_job_template == template:
        return Change("work pool", name, "unchanged")
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return Change("work pool", name, "updated")
