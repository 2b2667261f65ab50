"""Startup gating: a service starts after its schema migration, a worker after `register`.

`make up` brings a stack up in an order (stack, migrations, `register`, services) and notes in a
parameter of the stack what it has done. The program reads the note before it decides, so a bare
`pulumi up` holds a new service back instead of starting it too early, and leaves alone what runs.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Servers:
    """What has a database that must be migrated first; servers by their image. Empty: not in this
    stack.
    """

    mlflow: str = ""
    prefect: str = ""
    flows: str = ""
    contents: str = ""
    """What else they were migrated for: the database's origin, and the passwords in it."""


@dataclass(frozen=True)
class Ready:
    """What may run."""

    mlflow: bool
    prefect: bool
    flows: bool
    """Not to run, but to use their database."""
    worker: bool


def note(servers: Servers, *, registered: bool = True) -> str:
    """What `make up` writes down: first when migrations are done, then when `register` is."""
    return json.dumps({**asdict(servers), "registered": registered}, sort_keys=True)


NOTHING_DONE = "{}"
# What Servers.flows is where flows have a database of their own: no image, for none serves it.
A_DATABASE = "a database"


def ready(noted: Mapping[str, object], servers: Servers, *, worker_image: str) -> Ready:
    same = noted.get("contents", "") == servers.contents
    mlflow = same and bool(servers.mlflow) and noted.get("mlflow") == servers.mlflow
    prefect = same and bool(servers.prefect) and noted.get("prefect") == servers.prefect
    flows = same and bool(servers.flows) and noted.get("flows") == servers.flows
    api = prefect or not servers.prefect
    # A worker that starts before its pool is registered would find none.
    worker = bool(worker_image) and api and noted.get("registered") is True
    return Ready(mlflow=mlflow, prefect=prefect, flows=flows, worker=worker)


def gone(noted: Mapping[str, object], servers: Servers) -> list[str]:
    """What is noted and no longer in this stack. The note has to forget it: where it comes back, it
    has other passwords.
    """
    has = asdict(servers)
    return [name for name in ("mlflow", "prefect", "flows") if noted.get(name) and not has[name]]
