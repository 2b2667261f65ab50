"""`make demo`, `up`, `down`, `status` and `deploy`, as a user meets them.

The tests share one clone and one stack, in this order: a stack takes half a minute to come up.
"""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from tests.e2e.laptop.clones import Clone, interrupt, read_outputs, read_until, wait_for

pytestmark = pytest.mark.server

http = httpx.Client(trust_env=False, timeout=60)

# Takes the real flow's place where a test is about the stack: it waits to be interrupted.
WAITING_FLOW = """
import time
from prefect import flow, task

@task
def begin() -> None: ...

@flow(name="taxi-train")
def taxi_train(
    data: str,
    train_month: str | None = None,
    valid_month: str | None = None,
    one_month: bool = False,
    num_trials: int = 1,
    max_rmse_valid: float = 1,
    max_inference_time: float = 1,
) -> None:
    begin()
    if num_trials == 13:
        raise ValueError("13 [trials] bring bad luck")
    time.sleep(120)
"""


# --- before anything runs ------------------------------------------------------------------------


def test_a_fresh_clone_says_that_nothing_runs(clone: Clone) -> None:
    assert "the stack isn't running: `make up` starts it" in clone.run("status", fails=True)
    assert "the stack isn't running: `make up` starts it" in clone.run("deploy", fails=True)
    assert clone.run("down") == "nothing is running\n"


def test_a_folder_that_does_not_exist_is_named_before_anything_starts(clone: Clone) -> None:
    output = clone.run("demo", "--data", "no such", fails=True)
    assert output.splitlines()[0] == f"✗ no such folder: {clone.folder / 'no such'}"


def test_a_folder_that_cannot_be_written_is_named(clone: Clone) -> None:
    shutil.rmtree(clone.home)
    clone.home.write_text("a file is in the way")
    try:
        output = clone.run("up", fails=True)
    finally:
        clone.home.unlink()
    assert "the stack's folder can't be written" in output
    assert str(clone.home) in output
    assert "Traceback" not in output


def test_ctrl_c_while_the_servers_start_leaves_nothing_behind(clone: Clone) -> None:
    process = clone.start("up")
    wait_for("both servers", lambda: len(clone.processes()) >= 2)
    code, output = interrupt(process)
    assert code == 130, output
    assert "nothing is left running" in output
    assert clone.end() == []
    assert clone.run("down") == "nothing is running\n"


def test_a_server_that_dies_while_it_starts_is_named_with_its_logs_first_error(
    clone: Clone,
) -> None:
    database = clone.home / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    database.write_text("this is no database")
    try:
        output = clone.run("up", fails=True)
    finally:
        database.unlink()
    first = output.partition("✗ while starting: MLflow has died; the first error in ")[2]
    assert "ERROR mlflow.cli: (sqlite3.DatabaseError) file is not a database" in first
    assert 'File "' not in first  # no frames
    assert clone.end() == []


# --- make demo -----------------------------------------------------------------------------------


def test_the_demo_ends_with_a_champion_and_nothing_running(clone: Clone) -> None:
    output = clone.run("demo", "--trials", "2")
    assert "# taxi-trip-duration version 1 is the new champion" in output
    for stage in ("preprocess", "train-baseline", "search-xgboost", "write-report"):
        assert f"✓ stage     {stage}" in output
    assert "\x1b" not in output  # plain, where there is no terminal
    assert "the stack is stopped again" in output
    assert clone.end() == []


# --- the stack -----------------------------------------------------------------------------------


class Foreign(BaseHTTPRequestHandler):
    """Another clone's server: it answers whatever it is asked, and remembers what was written."""

    written: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def do_POST(self) -> None:
        self.written.append(self.path)
        self.do_GET()

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


def take_port(clone: Clone, service: str, servers: list[HTTPServer]) -> None:
    """Listen on the port that a service of the clone has chosen, before the service does."""
    while True:
        with suppress(OSError, ValueError, KeyError):
            state = json.loads((clone.home / "state.json").read_text())
            address = ("127.0.0.1", state["services"][service]["port"])
            servers.append(HTTPServer(address, Foreign))
            return servers[-1].serve_forever()
        time.sleep(0.01)


def test_a_port_lost_before_the_server_listens_is_another_port_and_nothing_else(
    clone: Clone,
) -> None:
    servers: list[HTTPServer] = []
    for service in ("prefect", "mlflow"):
        Thread(target=take_port, args=(clone, service, servers), daemon=True).start()
    try:
        output = clone.run("up")
        assert len(servers) == 2
        for server in servers:
            assert f"port {server.server_port} is taken: " in output
        lost = {f":{server.server_port}" for server in servers}
        outputs = read_outputs(clone)
        for url in (outputs["prefect_api_url"], outputs["tracking_uri"]):
            assert not any(port in url for port in lost)
        assert not any(port in (clone.home / "env").read_text() for port in lost)
        assert http.get(f"{outputs['prefect_api_url']}/health").is_success
        assert Foreign.written == []
    finally:
        clone.run("down")
        for server in servers:
            server.shutdown()
            server.server_close()


def test_a_stack_whose_server_died_deploys_to_nobody_else(clone: Clone) -> None:
    clone.run("up")
    port = int(read_outputs(clone)["prefect_api_url"].split(":")[2].split("/")[0])
    for process in clone.processes():
        if process.environ().get("TRAINYARD_STACK_SERVICE") == "prefect":
            process.kill()
    servers: list[HTTPServer] = []
    Thread(target=take_port, args=(clone, "prefect", servers), daemon=True).start()
    wait_for("the foreign server", lambda: servers)
    try:
        assert "Prefect has died" in clone.run("deploy", fails=True)
        asked = ("/workers/heartbeat", "/get_scheduled_flow_runs")  # by the worker, which lives on
        assert [path for path in Foreign.written if not path.endswith(asked)] == []
        assert servers[0].server_port == port
    finally:
        clone.run("down")
        servers[0].shutdown()
        servers[0].server_close()


def test_the_stacks_folder_is_its_owners_only(clone: Clone) -> None:
    assert stat.S_IMODE(clone.home.stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def taken() -> Iterator[None]:
    """Somebody else has the usual ports."""
    with ExitStack() as sockets:
        for port in (4200, 5000):
            other = sockets.enter_context(socket.socket())
            # the demo before this has only just given them up
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.bind(("127.0.0.1", port))
                other.listen()
            except OSError:
                pass  # really taken
        yield


def test_taken_ports_are_reported_and_others_used(clone: Clone, taken: None) -> None:
    output = clone.run("up")
    assert "port 4200 is taken: Prefect uses " in output
    assert "port 5000 is taken: MLflow uses " in output
    outputs = read_outputs(clone)
    assert http.get(outputs["tracking_uri"] + "/health").is_success
    ui = outputs["prefect_api_url"].removesuffix("/api")
    settings = http.get(f"{ui}/ui-settings").json()
    assert settings["api_url"] == outputs["prefect_api_url"]  # not another Prefect's, on 4200
    for place in (
        outputs["prefect_api_url"].removesuffix("/api"),
        outputs["tracking_uri"],
        str(clone.home / "artifacts"),
        str(clone.home / "logs"),
    ):
        assert place in output


def test_up_twice_says_that_all_runs_already(stack: Clone) -> None:
    before = {process.pid for process in stack.processes()}
    assert "the stack is already running:" in stack.run("up")
    assert {process.pid for process in stack.processes()} == before


def test_status_shows_each_process_with_its_address_and_memory(stack: Clone) -> None:
    lines = {line.split()[0]: line for line in stack.run("status").splitlines() if line.strip()}
    outputs = read_outputs(stack)
    assert "running" in lines["Prefect"]
    assert outputs["tracking_uri"] in lines["MLflow"]
    assert " MB" in lines["worker"]


def test_nothing_listens_beyond_loopback(stack: Clone) -> None:
    listening = [
        connection.laddr.ip
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 2
    assert set(listening) == {"127.0.0.1"}


def test_nothing_of_the_users_own_prefect_and_mlflow_reaches_the_stack(stack: Clone) -> None:
    for process in stack.processes():
        environment = process.environ()
        assert "PREFECT_API_KEY" not in environment
        assert "PREFECT_PROFILE" not in environment
        assert environment["DO_NOT_TRACK"] == "1"
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert environment.get("PREFECT_API_URL", "http://127.0.0.1").startswith("http://127.0.0.1")


def test_the_servers_transactions_take_turns(stack: Clone) -> None:
    api = read_outputs(stack)["prefect_api_url"]
    settings = http.get(f"{api}/admin/settings", auth=stack.login).json()
    broker = settings["server"]["events"]["messaging_broker"]
    assert broker == "trainyard.prefect.patches.sqlite_messaging"


def test_a_second_demo_uses_the_running_stack_and_leaves_it_up(stack: Clone) -> None:
    output = stack.run("demo", "--trials", "2")
    assert "register  nothing to change" in output
    # what the first demo registered is still there, and as good
    assert "# taxi-trip-duration version 2 is registered, kept champion v1" in output
    assert "`make down` stops the stack" in output
    assert "running" in stack.run("status")
    champion = http.get(
        read_outputs(stack)["tracking_uri"] + "/api/2.0/mlflow/registered-models/alias",
        params={"name": "taxi-trip-duration", "alias": "champion"},
    ).json()
    assert champion["model_version"]["version"] == "1"


def test_schedules_rest_until_somebody_asks_for_them(stack: Clone) -> None:
    assert "schedules at rest: `make deploy SCHEDULES=1`" in stack.run("deploy")
    assert not any(schedules(stack))
    assert "at rest" not in stack.run("deploy", "--schedules")
    assert all(schedules(stack))
    # Prefect's scheduler fails silently on some versions of its own dependencies.
    wait_for("a scheduled run", lambda: api(stack, "flow_runs/filter", state="SCHEDULED"), 90)
    stack.run("deploy")
    assert not any(schedules(stack))
    wait_for(
        "what was planned is gone", lambda: not api(stack, "flow_runs/filter", state="SCHEDULED")
    )


def test_with_the_env_file_users_type_prefect_themselves(stack: Clone) -> None:
    (stack.folder / "flows" / "taxi" / "train.py").write_text(WAITING_FLOW)
    result = subprocess.run(
        ["sh", "-ec", ". .trainyard/env; prefect --no-prompt deploy --all"],
        cwd=stack.folder,
        env={**stack.environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "'taxi-train/taxi-train' successfully created" in result.stdout, result.stderr


def test_the_webhooks_address_goes_to_prefect_and_to_no_process(stack: Clone) -> None:
    stack.environment["TRAINYARD_NOTIFY_WEBHOOK"] = "http://127.0.0.1:9/s3cret"
    try:
        stack.run("deploy")
    finally:
        del stack.environment["TRAINYARD_NOTIFY_WEBHOOK"]
    kind = f"{read_outputs(stack)['prefect_api_url']}/block_types/slug/custom-webhook"
    blocks = http.get(f"{kind}/block_documents", auth=stack.login).raise_for_status().json()
    assert [block["name"] for block in blocks] == ["trainyard-notifications"]
    assert not any("s3cret" in str(process.environ()) for process in stack.processes())


def test_a_mistake_in_prefect_yaml_stops_the_deploy(stack: Clone) -> None:
    file = stack.folder / "prefect.yaml"
    text = file.read_text()
    file.write_text(text.replace("num_trials: 20", "num_trails: 20"))
    try:
        output = stack.run("deploy", fails=True)
    finally:
        file.write_text(text)
    assert "✗ nothing was deployed:" in output
    assert "num_trails" in output


def test_a_failed_run_shows_its_message_its_log_and_where_to_look(stack: Clone) -> None:
    output = stack.run("demo", "--trials", "13", fails=True)
    assert "✗ the run ended as Failed:" in output
    assert "│ ValueError: 13 [trials] bring bad luck" in output
    assert "/runs/flow-run/" in output
    assert str(stack.home / "logs" / "worker.log") in output
    assert "running" in stack.run("status")


def test_ctrl_c_in_a_demo_cancels_its_run_and_leaves_the_stack_up(stack: Clone) -> None:
    before = {process.pid for process in stack.processes()}
    process = stack.start("demo")
    read_until(process, "✓ stage     begin")
    code, output = interrupt(process)
    assert code == 130, output
    wait_for(
        "the run is Cancelled", lambda: newest_run(stack)["state_name"] == "Cancelled", seconds=60
    )
    wait_for(
        "the run's process is gone",
        lambda: {process.pid for process in stack.processes()} <= before,
    )


def test_a_worker_that_dies_under_a_demo_is_named_and_its_run_starts_again(stack: Clone) -> None:
    process = stack.start("demo")
    seen = read_until(process, "✓ stage     begin")
    kill(stack, "worker")
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 1, seen + rest
    assert "✗ worker has died; the end of" in rest
    status = stack.run("status", fails=True)
    assert "dead" in status
    assert str(stack.home / "logs" / "worker.log") in status
    assert "✓ worker" in stack.run("up")
    wait_for(
        "the run is about to start again",
        lambda: newest_run(stack)["state_name"] == "Recovering",
    )


@pytest.mark.parametrize(("service", "label"), [("mlflow", "MLflow"), ("prefect", "Prefect")])
def test_a_killed_server_is_reported_and_started_again_where_it_was(
    stack: Clone, service: str, label: str
) -> None:
    outputs = read_outputs(stack)
    kill(stack, service)
    status = stack.run("status", fails=True)
    assert "dead" in next(line for line in status.splitlines() if label in line)
    assert f"{label}: the end of {stack.home / 'logs' / service}.log:" in status
    assert "`make up` starts again what is dead" in status
    output = stack.run("up")
    assert f"{label} has died; the end of" in output
    assert f"✓ {label}" in output
    assert read_outputs(stack) == outputs
    assert "dead" not in stack.run("status")


def test_a_state_file_that_cannot_be_read_is_named_and_down_still_works(stack: Clone) -> None:
    (stack.home / "state.json").write_text("{")
    for command in ("up", "status"):
        output = stack.run(command, fails=True)
        assert f"{stack.home / 'state.json'} can't be read" in output
        assert "`make down` stops what runs" in output
    assert stack.run("down") == "the stack is stopped\n"
    assert stack.end() == []
    assert not (stack.home / "state.json").exists()


def test_down_leaves_a_process_alone_that_has_the_number_of_a_dead_one(clone: Clone) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as foreign:
        service = {"pid": foreign.pid, "started": "2026-01-01T00:00:00Z", "port": 4200}
        names = ("prefect", "mlflow", "worker")
        (clone.home / "state.json").write_text(
            json.dumps({"services": dict.fromkeys(names, service)})
        )
        assert "dead" in clone.run("status", fails=True)
        assert clone.run("down") == "nothing is running\n"
        assert foreign.poll() is None
        foreign.kill()


# --- helpers -------------------------------------------------------------------------------------


def kill(clone: Clone, service: str) -> None:
    """As the system does when memory runs out."""
    state = json.loads((clone.home / "state.json").read_text())
    os.kill(state["services"][service]["pid"], signal.SIGKILL)


def api(clone: Clone, path: str, state: str | None = None) -> list[dict[str, Any]]:
    url = f"{read_outputs(clone)['prefect_api_url']}/{path}"
    body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_DESC"}
    if state:
        body["flow_runs"] = {"state": {"type": {"any_": [state]}}}
    return list(http.post(url, json=body, auth=clone.login).raise_for_status().json())


def schedules(clone: Clone) -> list[bool]:
    """Whether each schedule of all deployments is active."""
    url = f"{read_outputs(clone)['prefect_api_url']}/deployments/filter"
    found = http.post(url, json={}, auth=clone.login).raise_for_status().json()
    return [each["active"] for deployment in found for each in deployment["schedules"]]


def newest_run(clone: Clone) -> dict[str, Any]:
    """The run that was made last, of those that aren't in the future."""
    runs = [run for run in api(clone, "flow_runs/filter") if run["state_type"] != "SCHEDULED"]
    return max(runs, key=lambda run: str(run["created"]))
