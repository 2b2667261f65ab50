"""`trainyard model serve`: the process that serves a registered model on a port of loopback, or as
a task of a stack (infra/components/model_server.py) on the task's address.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial

import uvicorn
from fastapi import FastAPI
from mlflow import MlflowClient

from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.registry import RegistryError, spec_of
from flows.lifecycle.serving import create_app
from flows.lifecycle.serving_log import FLUSH, RequestLog
from flows.lifecycle.serving_metrics import Metrics, ShadowMetrics
from flows.lifecycle.serving_models import Watch
from flows.lifecycle.serving_rows import Limits, RowReader
from flows.lifecycle.serving_shadow import Shadow
from flows.lifecycle.serving_start import wait_for_champion, wait_for_model
from flows.lifecycle.spec import SpecError
from flows.platform.settings import load_settings

HOST = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 (a task's address: its security group says who reaches it)
DRAIN, DRAIN_ON_ECS = 8, 26
"""Seconds for requests under way once it is to stop, and then for their log; `make down` kills
after 10, ECS after 30."""
KEEP_ALIVE = 75
"""Seconds that a connection stays open: a load balancer takes one for open that it has used within
60."""


class PortTakenError(RuntimeError):
    """Somebody else listens on the port."""


def serve(
    client: MlflowClient, name: str, alias: str, port: int, hosts: Sequence[str] = ()
) -> None:
    """Serve the version that an alias names, until SIGTERM or Ctrl-C.

    Args:
        port: 0 takes a free one.
        hosts: the names under which others reach it. Given, it listens on all addresses, and waits
            for MLflow and the model; without, on loopback only.

    Raises:
        RegistryError: there is no such model, or a version is asked for in place of an alias.
        SpecError: the model's pipeline doesn't say what a row of it has.
        PortTakenError: somebody else listens there.
    """
    if alias.isdigit():
        raise RegistryError(f"an alias is served, not a version: `trainyard model serve {name}`")
    # else a look at an MLflow that is away would last for minutes, and longer than its absence
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("flows.lifecycle").setLevel(logging.INFO)
    listen = partial(_listening, EVERYWHERE if hosts else HOST, port)
    if hosts:
        wait_for_model(client, name, listen)
    spec, place = spec_of(client, name)
    if spec.served is None:
        raise SpecError(
            f"{name} can't be served: {place} doesn't say what a row has; give its ModelSpec "
            "`served`, as flows/taxi/spec.py does"
        )
    reader, metrics = RowReader(spec.served, Limits()), Metrics()
    watch = Watch(client, spec, alias, reader.example_frame(), metrics)
    if hosts:
        wait_for_champion(client, watch)
    with listen() as listening:
        address = f"http://{hosts[0] if hosts else HOST}:{listening.getsockname()[1]}"
        body = json.dumps({"rows": [reader.example]})
        headers = "-H 'Content-Type: application/json'"
        sys.stdout.write(
            f"{name}@{alias} at {address}, its pages at {address}/docs; Ctrl-C ends it\n"
            f"curl --noproxy '*' {address}/predict {headers} -d '{body}'\n"
        )
        sys.stdout.flush()
        config = uvicorn.Config(
            _app(client, watch, reader, metrics, hosts),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int((DRAIN_ON_ECS if hosts else DRAIN) - FLUSH),
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # raised again once requests have been answered
            sys.stdout.write("stopped\n")


def _app(
    client: MlflowClient,
    watch: Watch,
    reader: RowReader,
    metrics: Metrics,
    hosts: Sequence[str],
) -> FastAPI:
    """The app with its log, and with the challenger in shadow where the champion answers."""
    settings, spec = load_settings(), watch.spec
    log = RequestLog(settings.artifact_store, spec, [*reader.schema], settings.serve_log, metrics)
    shadow = None
    if watch.alias == CHAMPION:
        measures = ShadowMetrics(metrics.registry)
        shadow = Shadow(client, spec, reader.example_frame(), log, measures)
    return create_app(watch, reader, metrics, log, shadow, hosts)


def _listening(host: str, port: int) -> socket.socket:
    # Named as TCP, or asyncio leaves Nagle's algorithm on, which holds each answer back by 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # what comes before the server is up waits
    except OSError as error:
        listening.close()
        fault = os.strerror(error.errno or 0)
        raise PortTakenError(
            f"port {port} can't be had ({fault}): `--port` takes another one"
        ) from error
    return listening
