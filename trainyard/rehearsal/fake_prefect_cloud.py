"""What stands in for Prefect Cloud: Prefect's own server, opened by an API key, with one workspace.

`python -m trainyard.rehearsal.fake_prefect_cloud HOST PORT`, the key in PREFECT_API_KEY. Cloud asks
for the key in its web sockets' headers too; a client that talks to another address than Cloud's
doesn't send it there, so here they are open. It listens on the rehearsal's own network only.
"""

import hmac
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from trainyard.paths import REPO
from trainyard.rehearsal.emulator_session import GATEWAY, RehearsalError

PORT = 4280
WORKSPACE = "/accounts/rehearsal/workspaces/rehearsal"
URL = f"http://{GATEWAY}:{PORT}/api{WORKSPACE}"


def start(home: Path, key: str) -> subprocess.Popen[bytes]:
    """Start it from nothing, with its database in `home`; it answers when this returns."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "trainyard.rehearsal.fake_prefect_cloud", GATEWAY, str(PORT)],
        env={
            **os.environ,
            "PREFECT_API_KEY": key,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "trainyard.prefect.patches.sqlite_messaging",
        },
        cwd=REPO,
        stdout=(home / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    for _ in range(240):
        if process.poll() is not None:
            raise RehearsalError(f"what stands in for Prefect Cloud ended: see {home}/server.log")
        try:
            # With the key: its health is that of any that listens there.
            given = {"Authorization": f"Bearer {key}"}
            httpx.get(f"{URL}/admin/version", headers=given, timeout=2).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return process
    stop(process)
    raise RehearsalError(f"what stands in for Prefect Cloud doesn't answer: see {home}/server.log")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, by force if it takes longer than its clients may take to leave."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Workspace:
    """A server at a workspace's address, for who has the key; its health is anybody's."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse: with 404 outside of the workspace, with 401 without the key."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        before, _, route = scope["path"].partition(f"/api{WORKSPACE}/")
        path = f"/api/{route}"
        given = dict(scope["headers"]).get(b"authorization", b"")
        open_to_all = scope["type"] == "websocket" or path == "/api/health"
        if before:
            status, why = 404, b'{"detail": "Not Found"}'
        elif open_to_all or hmac.compare_digest(given, self._expected):
            await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
            return
        else:
            status, why = 401, b'{"detail": "Invalid API key"}'
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": why})


def main() -> None:
    """Serve until told to stop."""
    import uvicorn
    from prefect.server.api.server import create_app

    host, port = sys.argv[1], int(sys.argv[2])
    app = Workspace(create_app(final=True), os.environ["PREFECT_API_KEY"])
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
