"""Tells a Prefect server about a stack: StackOutputs -> work pool, variables, blocks, limits.

`python -m infra.register --outputs FILE`. A second run changes nothing and says so.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import LocalFileSystem
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from infra.outputs import StackOutputs

RESULT_STORAGE = "trainyard-results"

# How many runs may use something at once, over all deployments.
CONCURRENCY_LIMITS = {
    # months that are fetched from TLC's public site: a guest doesn't hammer it
    "tlc-downloads": 2,
}


class RegisterError(Exception):
    """The stack cannot be registered; the message says why and what to do."""


@dataclass(frozen=True)
class Change:
    """What became of one object."""

    kind: str
    name: str
    result: Literal["created", "updated", "unchanged"]


def register(outputs: StackOutputs) -> list[Change]:
    """Make the stack's Prefect server match `outputs`; safe to repeat.

    Raises:
        RegisterError: the server cannot be reached or refuses, or `outputs` asks for what
            there isn't yet.
    """
    if "://" in outputs.artifact_store:
        raise RegisterError(
            f"results on {outputs.artifact_store} need a block that doesn't exist yet:"
            " a process pool keeps them in a folder"
        )
    with temporary_settings({PREFECT_API_URL: outputs.prefect_api_url}):
        try:
            with get_client(sync_client=True) as client:
                return list(_changes(client, outputs))
        except httpx.HTTPStatusError as error:
            raise RegisterError(
                f"Prefect at {outputs.prefect_api_url} refuses"
                f" {error.request.method} {error.request.url.path}:"
                f" {error.response.status_code} {error.response.text[:500]}"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegisterError(
                f"no Prefect server answers at {outputs.prefect_api_url}"
                f" ({error or type(error).__name__}): is the stack up?"
            ) from error


def summary(changes: list[Change]) -> str:
    """Say in a few words what changed."""
    counts = {
        result: sum(change.result == result for change in changes)
        for result in ("created", "updated")
    }
    return ", ".join(f"{n} {result}" for result, n in counts.items() if n) or "nothing to change"


def base_job_template(outputs: StackOutputs) -> dict[str, Any]:
    """How a process worker starts a flow run of this stack."""
    environment = {
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": f"local-file-system/{RESULT_STORAGE}",
        "PYTHONPATH": outputs.code_dir,
        "MLFLOW_TRACKING_URI": outputs.tracking_uri,
    }
    return {
        "job_configuration": {
            # Said outright because what Prefect puts here by default prepares the code in a
            # process of its own first: 2.5 s more for each run, for code that is already there.
            "command": "{{ command }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "stream_output": "{{ stream_output }}",
            "working_dir": "{{ working_dir }}",
        },
        "variables": {
            "type": "object",
            "properties": {
                "name": _string("The name of the process."),
                "command": _string("What starts a run.", default="python -m prefect.engine"),
                "env": {
                    "type": "object",
                    "title": "Environment variables",
                    "description": "Environment variables of a run, beside the worker's own.",
                    "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "default": environment,
                },
                "labels": {
                    "type": "object",
                    "title": "Labels",
                    "description": "Labels of the process.",
                    "additionalProperties": {"type": "string"},
                },
                "stream_output": {
                    "type": "boolean",
                    "title": "Stream output",
                    "description": "Write a run's output to the worker's log.",
                    "default": True,
                },
                "working_dir": _string("Where a run starts; empty for a temporary folder."),
                "image": _string(
                    "What a run's container is started from. Ignored by this pool, whose runs are"
                    " processes: it is here so that the same prefect.yaml serves every stack."
                ),
            },
        },
    }


def _string(description: str, default: str | None = None) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": description,
        "default": default,
    }


def _changes(client: SyncPrefectClient, outputs: StackOutputs) -> Iterator[Change]:
    # The pool comes last: once it is there, a worker takes runs, and they need the rest.
    yield _result_storage(client, outputs)
    yield _variable(client, "trainyard_artifact_store", outputs.artifact_store)
    yield _variable(client, "trainyard_tracking_uri", outputs.tracking_uri)
    for name, limit in CONCURRENCY_LIMITS.items():
        yield _concurrency_limit(client, name, limit)
    yield _work_pool(client, outputs)


def _result_storage(client: SyncPrefectClient, outputs: StackOutputs) -> Change:
    wanted = LocalFileSystem(basepath=f"{outputs.artifact_store}/results")
    try:
        document = client.read_block_document_by_name(RESULT_STORAGE, "local-file-system")
    except ObjectNotFound:
        document = None
    if document and document.data.get("basepath") == wanted.basepath:
        return Change("block", RESULT_STORAGE, "unchanged")
    wanted.save(RESULT_STORAGE, overwrite=True)
    return Change("block", RESULT_STORAGE, "updated" if document else "created")


def _variable(client: SyncPrefectClient, name: str, value: str) -> Change:
    variable = client.read_variable_by_name(name)
    if variable is None:
        client.create_variable(VariableCreate(name=name, value=value))
        return Change("variable", name, "created")
    if variable.value == value:
        return Change("variable", name, "unchanged")
    client.update_variable(VariableUpdate(name=name, value=value))
    return Change("variable", name, "updated")


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Register the stack that a StackOutputs file describes."""
    parser = argparse.ArgumentParser(prog="python -m infra.register", description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True, help="a StackOutputs JSON file")
    path: Path = parser.parse_args(arguments).outputs
    try:
        changes = register(StackOutputs.model_validate_json(path.read_bytes()))
    except (OSError, ValidationError, RegisterError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    table = Table(box=None, header_style="bold")
    for column in ("what", "name", "result"):
        table.add_column(column, no_wrap=True)
    for change in changes:
        table.add_row(change.kind, change.name, change.result)
    console = Console()
    console.print(table)
    console.print(summary(changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
