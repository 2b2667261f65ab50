"""What stands in for Prefect Cloud: Prefect's own server, opened by an API key.

`python -m infra.rehearsal.cloud HOST PORT`, the key in PREFECT_API_KEY. Cloud asks for the key in
its web sockets' headers too; a client that talks to another address than Cloud's doesn't send it
there, so here they are open. It listens on the rehearsal's own network only.
"""

import hmac
import os
import sys
from typing import Any

import uvicorn
from prefect.server.api.server import create_app


class KeyRequired:
    """An application that answers HTTP requests with the right key, and questions of its health."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse with 401."""
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        open_to_all = scope["type"] != "http" or scope["path"] == "/api/health"
        if open_to_all or hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b'{"detail": "Invalid API key"}'})


def main() -> None:
    """Serve until told to stop."""
    host, port = sys.argv[1], int(sys.argv[2])
    app = KeyRequired(create_app(final=True), os.environ["PREFECT_API_KEY"])
    uvicorn.run(app, host=host, port=port, log_level="warning")


if __name__ == "__main__":
    main()
