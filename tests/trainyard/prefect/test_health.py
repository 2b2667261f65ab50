"""What `make doctor` asks of a stack's services."""

import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from trainyard.contract.outputs import ProcessWorkPool, StackOutputs
from trainyard.prefect.health import Check, check_services, tell
from trainyard.prefect.register import register

pytestmark = pytest.mark.server


class MLflow(BaseHTTPRequestHandler):
    """A tracking server that keeps its version to itself."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 401)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def outputs(prefect_server: str) -> Iterator[StackOutputs]:
    server = HTTPServer(("127.0.0.1", 0), MLflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield StackOutputs(
        stack="dev",
        prefect_api_url=prefect_server,
        tracking_uri=f"http://127.0.0.1:{server.server_port}",
        artifact_store="/home/me/artifacts",
        code_dir="/app",
        work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
    )
    server.shutdown()


def failures(outputs: StackOutputs) -> dict[str, str]:
    return {c.what: f"{c.found} {c.todo}" for c in check_services(outputs) if c.failed}


def test_services_as_they_should_be_and_each_thing_that_is_not(outputs: StackOutputs) -> None:
    assert failures(outputs).keys() == {"work pool", "worker"}
    register(outputs)
    pool = f"{outputs.prefect_api_url}/work_pools/{outputs.work_pool.name}"
    assert "no worker" in failures(outputs)["worker"]
    httpx.post(f"{pool}/workers/heartbeat", json={"name": "w"}).raise_for_status()
    assert failures(outputs) == {}

    moved = outputs.model_copy(update={"code_dir": "/elsewhere"})
    assert "make deploy STACK=dev" in failures(moved)["work pool"]
    httpx.patch(pool, json={"is_paused": True}).raise_for_status()
    assert "work-pool resume" in failures(outputs)["work pool"]


def test_servers_that_do_not_answer_are_named(outputs: StackOutputs) -> None:
    nowhere = {"prefect_api_url": "http://127.0.0.1:9/api", "tracking_uri": "http://127.0.0.1:9"}
    found = failures(outputs.model_copy(update=nowhere))
    assert found.keys() == {"Prefect", "work pool", "worker", "deployments", "MLflow"}


def test_a_private_mlflow_is_not_asked_from_outside(outputs: StackOutputs) -> None:
    private = {"tracking_uri": "http://mlflow.dev.trainyard.internal:5000"}
    found = {c.what: c for c in check_services(outputs.model_copy(update=private))}
    assert "not reached from here" in found["MLflow"].found
    assert not found["MLflow"].failed


def test_the_exit_code_is_1_when_something_has_to_be_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine, hint, wrong = Check("a", "b"), Check("c", "d", "e", optional=True), Check("f", "g", "h")
    assert tell([fine, hint]) == 0
    assert tell([wrong, fine]) == 1
    assert "-> h" in capsys.readouterr().out
