"""What a stack's serving process waits for before it listens: MLflow, the model, and its champion.

So one question, /health, is enough for ECS, DNS and a load balancer: a process that answers it has
the champion loaded, or there was none to load. /ready would have ECS kill a task for want of one.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Thread

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.lifecycle.registry import RegistryError, aliases, spec_of
from flows.lifecycle.serving_models import Watch

logger = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two looks."""


def wait_for_model(client: MlflowClient, name: str, listening: Callable[[], socket.socket]) -> None:
    """Return once MLflow has the model. While it says that it hasn't, answer that.

    Args:
        listening: opens the port.

    Raises:
        SpecError: the code has no such spec as the model's.
    """
    said = ""
    with ExitStack() as answering:
        while True:
            try:
                spec_of(client, name)
                return
            except RegistryError as error:
                why = f"{name} isn't served yet: {error}"
                if not said.startswith(name):
                    answering.enter_context(_answering(why, listening()))
                    said = why
                    logger.warning(why)
            except MlflowException as error:
                if not said:
                    said = f"waiting for MLflow: {str(error).splitlines()[0]}"
                    logger.warning(said)
            time.sleep(EVERY)


def wait_for_champion(client: MlflowClient, watch: Watch) -> None:
    """Return once the alias' version is loaded, or MLflow says that no version has the alias."""
    while True:
        watch.look()
        if watch.current is not None:
            return
        with suppress(MlflowException):  # it's away: the watch has said so
            if watch.alias not in aliases(client, watch.spec.name):
                return
        time.sleep(EVERY)


@contextmanager
def _answering(why: str, listening: socket.socket) -> Iterator[None]:
    """Answer 200 at /health, and everywhere else why there is no prediction."""
    app = FastAPI(openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def refuse() -> JSONResponse:
        return JSONResponse({"detail": why}, 503, {"retry-after": "1"})

    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
