"""What stands in for Prefect Cloud, as a client finds it."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_SERVER_API_BASE_PATH, PREFECT_UI_ENABLED, temporary_settings

from trainyard.rehearsal import fake_prefect_cloud as cloud
from trainyard.rehearsal.emulator_session import RehearsalError


@pytest.fixture(scope="module")
def server() -> Any:
    opened = {PREFECT_SERVER_API_BASE_PATH: cloud.WORKSPACE, PREFECT_UI_ENABLED: False}
    with pytest.MonkeyPatch.context() as monkeypatch, temporary_settings(opened):
        monkeypatch.setenv("PREFECT_API_KEY", "right")
        return cloud.server()


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (f"{cloud.WORKSPACE}/admin/version", "right", 200),
        (f"{cloud.WORKSPACE}/admin/version", "wrong", 401),
        (f"{cloud.WORKSPACE}/health", "", 200),
        (f"{cloud.WORKSPACE}/variables/name/health", "", 401),
        ("/api/admin/version", "right", 404),
        ("/api/health", "right", 404),
        (f"/x{cloud.WORKSPACE}/admin/version", "right", 404),
    ],
)
def test_the_workspace_is_all_there_is_and_its_key_opens_it(
    path: str, key: str, status: int, server: Any
) -> None:
    async def ask() -> int:
        transport = httpx.ASGITransport(server)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.get(path, headers={"Authorization": f"Bearer {key}"})
        return answer.status_code

    assert asyncio.run(ask()) == status


def test_a_stand_in_that_was_left_running_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Orphan(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 401)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    orphan = HTTPServer(("127.0.0.1", 0), Orphan)
    threading.Thread(target=orphan.serve_forever, daemon=True).start()
    port = orphan.server_port
    monkeypatch.setattr(cloud, "GATEWAY", "127.0.0.1")
    monkeypatch.setattr(cloud, "PORT", port)
    monkeypatch.setattr(cloud, "URL", f"http://127.0.0.1:{port}{cloud.WORKSPACE}")
    new = tmp_path / "python"  # which finds the port taken
    new.write_text("#!/bin/sh\nsleep 1\nexit 1\n")
    new.chmod(0o755)
    monkeypatch.setattr(cloud.sys, "executable", str(new))
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "prefect.db").write_text("of the last rehearsal")
    with pytest.raises(RehearsalError, match="ended"):
        cloud.start(home, "key")
    orphan.shutdown()
    assert not (home / "prefect.db").exists()
