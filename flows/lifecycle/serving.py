"""A registered model behind HTTP: the app, which knows neither the command line nor a server.

Its predictions are the batch scorer's. A row that the model has no answer for is null, and named
under `unanswered`; a row that can't be read refuses the request, because its sender can correct it.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.lifecycle.scoring import NO_ANSWER, answers
from flows.lifecycle.serving_log import Answered, RequestLog, now
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.serving_models import Served, Watch, encoded, predictions
from flows.lifecycle.serving_rows import JSON, TABLES, Limits, RequestError, RowReader
from flows.lifecycle.serving_shadow import Shadow

logger = logging.getLogger(__name__)

FAILED = "this request failed here, which isn't its fault: the server's log says why"
HOSTS = ("127.0.0.1", "localhost", "::1")


class Unanswered(BaseModel):
    """A row without an answer."""

    row: int
    """From 0."""
    reason: str


class Predictions(BaseModel):
    """A prediction a row, in their order."""

    model: str
    version: str
    predictions: list[Any]
    """Null where there is none; an object of named answers where the model has several."""
    unanswered: list[Unanswered]


class Version(BaseModel):
    """What answers, and what it was made from; null where nothing recorded it."""

    model: str
    alias: str
    version: str
    since: str
    flow_run: str | None = None
    flow_run_url: str | None = None
    commit: str | None = None
    image: str | None = None


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str


@dataclass
class _UnderWay:
    """Requests that aren't answered yet, and the bytes of their bodies."""

    limits: Limits
    requests: int = 0
    bytes: int = 0

    def enter(self) -> None:
        """Count a request, or tell it to come again."""
        if self.requests >= self.limits.at_once:
            raise RequestError(503, "busy", f"{self.requests} requests are under way: try again")
        self.requests += 1

    def hold(self, size: int) -> None:
        """Count a part of its body, if there is room for it."""
        if self.bytes + size > self.limits.bytes_at_once:
            raise RequestError(
                503, "busy", f"requests of {self.bytes:,} bytes are under way: try again"
            )
        self.bytes += size

    def leave(self, size: int) -> None:
        """The request is over, and its body of so many bytes is gone."""
        self.requests -= 1
        self.bytes -= size


def create_app(
    watch: Watch,
    reader: RowReader,
    metrics: Metrics,
    log: RequestLog,
    shadow: Shadow | None = None,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """Build the app; while it lives, it watches the alias, logs, and asks the challenger.

    Args:
        hosts: names that it is asked by, beside this machine's own.
    """
    limits = reader.limits
    pool = ThreadPoolExecutor(os.cpu_count(), "predict")

    async def keep(answered: Answered) -> None:
        """Once the answer has gone."""
        if logged := log.sampled():
            log.add(answered)
        if shadow:
            shadow.offer(answered, logged)

    app = _without_predictions(watch, metrics, hosts, _living(watch, log, shadow, pool))
    under_way = _UnderWay(limits)

    @app.post("/predict", response_model=Predictions, **_documented(reader))
    async def predict(request: Request) -> Response:
        """Predict some rows."""
        served, start = _loaded(watch), time.perf_counter()
        under_way.enter()
        body = bytearray()
        try:
            await _read(request, limits, body, under_way)
            kind = request.headers.get("content-type", "")
            work = asyncio.get_running_loop().run_in_executor(
                pool, _answer, served, watch, reader, metrics, bytes(body), kind
            )
            async with asyncio.timeout(limits.seconds):
                answer, answered = await work
            named = {"x-request-id": answered.request}
            after = BackgroundTask(keep, answered)
            return Response(answer, headers=named, media_type=JSON, background=after)
        except TimeoutError:
            raise RequestError(
                503, "time", f"no answer within {limits.seconds:g} s: send fewer rows"
            ) from None
        finally:
            under_way.leave(len(body))
            metrics.seconds.observe(time.perf_counter() - start)

    return app


def _without_predictions(
    watch: Watch,
    metrics: Metrics,
    hosts: Sequence[str],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    spec = watch.spec
    app = FastAPI(title=spec.name, description=spec.about, lifespan=lifespan, version="1")
    app.add_middleware(LocalOnly, hosts=hosts)
    _answer_faults(app, metrics)
    _describe(app, watch, metrics)
    return app


def _living(
    watch: Watch, log: RequestLog, shadow: Shadow | None, pool: ThreadPoolExecutor
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What goes on beside requests; at the end, once they are answered, the log is written."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = Event()
        Thread(target=watch.follow, args=(stop,), daemon=True).start()
        log.start()
        if shadow:
            shadow.start()
        yield
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        if shadow:
            shadow.stop()
        log.close()

    return lifespan


def _answer(
    served: Served,
    watch: Watch,
    reader: RowReader,
    metrics: Metrics,
    body: bytes,
    content_type: str,
) -> tuple[bytes, Answered]:
    spec, rows, start = watch.spec, reader.read(body, content_type), time.perf_counter()
    try:
        named, known = answers(served.model, spec, rows)
        took = time.perf_counter() - start
        unanswered = (~known).arg_true().to_list()
        answer = encoded(
            {
                "model": spec.name,
                "version": served.version,
                "predictions": predictions(spec, named, known),
                "unanswered": [{"row": row, "reason": NO_ANSWER} for row in unanswered],
            }
        )
    except Exception:
        logger.exception("%s version %s failed on a request's rows", spec.name, served.version)
        raise RequestError(500, "model", FAILED) from None
    metrics.rows.inc(len(rows) - len(unanswered))
    metrics.unanswered.inc(len(unanswered))
    answered = Answered(rows, named, known, watch.alias, served.version, uuid4().hex, now(), took)
    return answer, answered


async def _read(request: Request, limits: Limits, body: bytearray, under_way: _UnderWay) -> None:
    """Read a body, if it isn't too large or too slow, and there is room for it."""
    too_large = RequestError(413, "size", f"a request has {limits.bytes:,} bytes at most")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.bytes:
        raise too_large
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                under_way.hold(len(part))
                body += part
                if len(body) > limits.bytes:
                    raise too_large
    except TimeoutError:
        raise RequestError(
            408, "time", f"the body didn't arrive within {limits.seconds:g} s"
        ) from None
    except ClientDisconnect:
        raise RequestError(400, "disconnected", "the client went away") from None


def _loaded(watch: Watch) -> Served:
    if watch.current is None:
        raise RequestError(
            503,
            "not ready",
            f"no version of {watch.spec.name}@{watch.alias} is loaded yet: the server's log says "
            "why, and it tries again by itself",
        )
    return watch.current


def _describe(app: FastAPI, watch: Watch, metrics: Metrics) -> None:
    """Add what says how the server is."""
    unready: dict[int | str, dict[str, Any]] = {503: {"model": Refusal}}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses=unready)
    async def ready() -> dict[str, str]:
        """Whether a model is loaded."""
        return {"status": "ready", "version": _loaded(watch).version}

    @app.get("/version", responses=unready)
    async def version() -> Version:
        """Which version answers, and what it was made from."""
        served = _loaded(watch)
        made = {"flow_run", "flow_run_url", "commit", "image"}
        recorded = served.lineage.model_dump(include=made) if served.lineage else {}
        return Version(
            model=watch.spec.name,
            alias=watch.alias,
            version=served.version,
            since=served.since.isoformat(timespec="seconds"),
            **recorded,
        )

    @app.get("/metrics", response_class=Response)
    async def page() -> Response:
        """Prometheus' page."""
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})


def _answer_faults(app: FastAPI, metrics: Metrics) -> None:
    """Give every fault the same form, a sentence under `detail`."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        metrics.errors.labels(error.kind).inc()
        headers = {"retry-after": "1"} if error.status == 503 else {}
        return JSONResponse({"detail": error.detail}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        metrics.errors.labels("address").inc()
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        metrics.errors.labels("server").inc()
        return JSONResponse({"detail": FAILED}, 500)


def _documented(reader: RowReader) -> dict[str, Any]:
    """What the OpenAPI page says of a request."""
    schema = dict(reader.json_schema)
    defined = schema.pop("$defs")
    (row,) = defined.values()
    schema["properties"]["rows"]["items"] = row
    file = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": schema, "example": {"rows": [reader.example]}}}
    return {
        "openapi_extra": {
            "requestBody": {"required": True, "content": content | dict.fromkeys(TABLES, file)}
        },
        "responses": {status: {"model": Refusal} for status in (400, 408, 413, 415, 422, 500, 503)},
    }


class LocalOnly:
    """Answers what was sent to it by one of its names, and no page of another origin.

    A page elsewhere could have its name resolve to 127.0.0.1, and a browser would send it here.

    Args:
        hosts: its names beside this machine's own.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()) -> None:
        self.app, self.hosts = app, (*HOSTS, *hosts)
        # a load balancer, and whoever reads metrics, ask a task by its address
        self.open = {"/health", "/metrics"} if hosts else set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.open:
            headers = Request(scope).headers
            origin = headers.get("origin")
            asked = [f"//{headers.get('host', '')}", *([origin] if origin is not None else [])]
            if not all(_host(address) in self.hosts for address in asked):
                names = ", ".join(self.hosts)
                detail = f"this server answers by these names only, and its own pages: {names}"
                await JSONResponse({"detail": detail}, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
