"""A small HTTP API of a demo's own, on loopback, for as long as a run lasts."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds until it comes."""


@contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[str]:
    """Answer GET requests on a free port of 127.0.0.1 until the block ends; gives the address.

    Args:
        answer: from a request's path, with its query; one request at a time.
    """
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with one_at_a_time:
                given = answer(self.path)
            time.sleep(given.delay)
            with suppress(ConnectionError):  # the client may wait no longer
                self.send_response(given.status)
                for name, value in {"Content-Length": len(given.body), **given.headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(given.body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the run's log for the run."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # one that sleeps doesn't keep the run from ending
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def api_at(api: str, synthetic: Callable[[], Callable[[str], Answer]]) -> Iterator[str]:
    """An API's address. `synthetic` stands for the one that is made here, until the block ends."""
    if api != "synthetic":
        yield api.rstrip("/")
        return
    with serving(synthetic()) as url:
        yield url
