"""What stands in for Prefect Cloud: Prefect's own server, opened by an API key, with one workspace.

Cloud asks for the key in its web sockets' headers too; a client that talks to another address than
Cloud's doesn't send it there, so here they are open. It listens on the rehearsal's network only.
"""

import hmac
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from trainyard.laptop.processes import end
from trainyard.paths import REPO
from trainyard.rehearsal.emulator_session import GATEWAY, RehearsalError, wait_until

PORT = 4280
WORKSPACE = "/api/accounts/rehearsal/workspaces/rehearsal"
URL = f"http://{GATEWAY}:{PORT}{WORKSPACE}"


def start(home: Path, key: str) -> psutil.Popen:
    """Start it from nothing, with its database in `home`; it answers when this returns."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    process = psutil.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "--factory", f"{__name__}:server"),
            *("--host", GATEWAY, "--port", str(PORT)),
            *("--log-level", "warning", "--timeout-graceful-shutdown", "5"),
        ],
        env={
            **os.environ,
            "PREFECT_API_KEY": key,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_BASE_PATH": WORKSPACE,
            "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "trainyard.prefect.patches.sqlite_messaging",
            "PREFECT_SERVER_UI_ENABLED": "false",
        },
        cwd=REPO,
        stdout=(home / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
    )

    def answers() -> bool:
        if process.poll() is not None:
            raise RehearsalError(f"what stands in for Prefect Cloud ended: see {home}/server.log")
        # With the key: its health is that of any that listens there.
        given = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{URL}/admin/version", headers=given, timeout=2).is_success

    silent = f"what stands in for Prefect Cloud doesn't answer: see {home}/server.log"
    try:
        wait_until(answers, 120, lambda: silent, httpx.HTTPError)
    except BaseException:
        end([process])
        raise
    return process


def server() -> Any:
    """Prefect's server at a workspace's address, for who has the key; its health is anybody's."""
    from fastapi import Request, Response
    from prefect.server.api.server import create_app

    app = create_app(final=True, ignore_cache=True)
    expected = f"Bearer {os.environ['PREFECT_API_KEY']}"

    @app.middleware("http")
    async def require_key(request: Request, call_next: Any) -> Response:
        given = request.headers.get("Authorization", "")
        is_health = request.scope["path"] == f"{WORKSPACE}/health"
        if is_health or hmac.compare_digest(given.encode(), expected.encode()):
            answer: Response = await call_next(request)
            return answer
        return Response('{"detail": "Invalid API key"}', 401, media_type="application/json")

    return app
