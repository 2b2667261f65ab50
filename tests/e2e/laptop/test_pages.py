"""Who may use the laptop's Prefect: its own pages after their login, and no other page."""

import shutil
import stat
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from docs.pictures import BROWSERS, log_in
from tests.e2e.laptop.clones import Clone, read_outputs, wait_for

pytestmark = pytest.mark.server

http = httpx.Client(trust_env=False, timeout=60)
FOREIGN_NAME = "prefect.evil.example"
OPEN = {("GET", "/api/health"), ("GET", "/api/ready")}
SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/trainyard/workers/connect",
)

# What a page can try: to read, to write, with a guessed login, without asking first, by a socket.
ATTEMPTS = """
async ([api, sockets, login]) => {
  const json = {"Content-Type": "application/json"};
  const variable = JSON.stringify({name: "planted", value: "by a page"});
  const tries = {
    read: [`${api}/deployments/filter`, {method: "POST", headers: json, body: "{}"}],
    write: [`${api}/variables/`, {method: "POST", headers: json, body: variable}],
    simple: [`${api}/variables/`, {method: "POST", mode: "no-cors", body: variable}],
    cookies: [`${api}/variables/`, {method: "POST", credentials: "include", body: variable}],
  };
  const key = {...json, Authorization: "Basic " + btoa(login)};
  tries.login = [`${api}/variables/`, {method: "POST", headers: key, body: variable}];
  const got = {};
  for (const [name, [url, options]] of Object.entries(tries)) {
    got[name] = await fetch(url, options).then(
      async answer => answer.ok ? await answer.text() : `refused ${answer.status}`,
      error => `refused ${error.name}`);
  }
  for (const path of sockets) for (const protocol of [[], ["prefect"]]) {
    got[`${path} ${protocol}`] = await new Promise(resolve => {
      const socket = new WebSocket(`${api.replace("http", "ws")}/${path}`, protocol);
      socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: login}));
      socket.onmessage = message => resolve(message.data);
      socket.onclose = () => resolve("refused by closing");
    });
  }
  return got;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium")
    arguments = ["--no-sandbox", "--disable-background-networking"]
    arguments.append(f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture
def foreign_page(page: Page, tmp_path: Path) -> Iterator[Page]:
    """A page that another program on this machine serves."""
    (tmp_path / "index.html").write_text("<title>a page</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        yield page
        server.shutdown()


def variables(stack: Clone) -> list[str]:
    api = read_outputs(stack)["prefect_api_url"]
    found = http.post(f"{api}/variables/filter", json={}, auth=stack.login).raise_for_status()
    return [variable["name"] for variable in found.json()]


def attempts(page: Page, api: str, login: str = "admin:pass") -> dict[str, Any]:
    return dict(page.evaluate(ATTEMPTS, [api, SOCKETS, login]))


def test_the_page_asks_for_the_login_once_and_starts_a_run(stack: Clone, page: Page) -> None:
    stack.run("deploy")
    where = f"{stack.home / 'prefect-login'}   (Prefect's page asks for its line, once)"
    assert where in stack.run("status")
    api = read_outputs(stack)["prefect_api_url"]
    ui = f"http://localhost:{urlsplit(api).port}"  # both names of this machine do
    page.goto(ui)
    page.get_by_placeholder("admin:pass").fill("admin:pass")
    page.get_by_role("button", name="Login").click()
    page.wait_for_timeout(2000)
    assert "/login" in page.url
    log_in(page, ui, ":".join(stack.login))
    deployment = http.get(f"{api}/deployments/name/smoke/smoke", auth=stack.login).json()["id"]
    page.goto(f"{ui}/v2/deployments/deployment/{deployment}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Quick run").click()
    asked = {"deployments": {"id": {"any_": [deployment]}}}

    def completed() -> bool:
        runs = http.post(f"{api}/flow_runs/filter", json=asked, auth=stack.login).json()
        return [run["state_type"] for run in runs] == ["COMPLETED"]

    wait_for("the run that was started in the page has completed", completed, 120)


def test_a_page_of_another_origin_gets_nothing(stack: Clone, foreign_page: Page) -> None:
    api = read_outputs(stack)["prefect_api_url"]
    got = attempts(foreign_page, api)
    assert got.pop("simple") == "refused 0"  # opaque to the page: the variable below tells
    assert all(str(answer).startswith("refused") for answer in got.values()), got
    # even one that knows the login can't have its requests sent for it
    assert attempts(foreign_page, api, ":".join(stack.login))["login"] == "refused TypeError"
    assert "planted" not in variables(stack)


def test_a_foreign_name_for_this_machine_gets_nothing(stack: Clone, page: Page) -> None:
    """DNS rebinding: the attacker's host name leads to 127.0.0.1, so its origin is the server's."""
    ui = f"http://{FOREIGN_NAME}:{urlsplit(read_outputs(stack)['prefect_api_url']).port}"
    page.goto(f"{ui}/ui-settings")
    got = attempts(page, f"{ui}/api")
    assert all(str(answer).startswith("refused") for answer in got.values()), got
    assert "planted" not in variables(stack)
    # the attempts are real ones: with the login, the same do what they try
    got = attempts(page, f"{ui}/api", ":".join(stack.login))
    assert not str(got["login"]).startswith("refused"), got
    assert '"auth_success"' in got["events/in prefect"]
    assert "planted" in variables(stack)
    api = read_outputs(stack)["prefect_api_url"]
    http.delete(f"{api}/variables/name/planted", auth=stack.login).raise_for_status()


def test_every_route_of_the_api_wants_the_login(stack: Clone) -> None:
    api = read_outputs(stack)["prefect_api_url"]
    paths = http.get(f"{api}/openapi.json", auth=stack.login).json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    routes = {
        (method, path if path.startswith("/api") else f"/api{path}") for method, path in routes
    }
    assert len(routes) > 150
    assert routes >= OPEN
    root = api.removesuffix("/api")
    answering = {
        (method, path)
        for method, path in routes
        if http.request(method, root + path).status_code != httpx.codes.UNAUTHORIZED
    }
    assert answering == OPEN


def test_the_login_is_its_owners_and_in_no_other_file(stack: Clone) -> None:
    file = stack.home / "prefect-login"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    password = stack.login[1].encode()
    holding = [
        path for path in stack.home.rglob("*") if path.is_file() and password in path.read_bytes()
    ]
    assert holding == [file]
    assert not any(stack.login[1] in " ".join(p.cmdline()) for p in stack.processes())


@pytest.mark.parametrize(
    "headers", [{"Host": f"{FOREIGN_NAME}:5000"}, {"Origin": f"http://{FOREIGN_NAME}"}]
)
def test_mlflow_refuses_foreign_names_and_origins(stack: Clone, headers: dict[str, str]) -> None:
    experiments = f"{read_outputs(stack)['tracking_uri']}/api/2.0/mlflow/experiments"
    made = http.post(f"{experiments}/create", json={"name": "planted"}, headers=headers)
    assert made.status_code == httpx.codes.FORBIDDEN
    found = http.post(f"{experiments}/search", json={"max_results": 100}).json()["experiments"]
    assert "planted" not in [experiment["name"] for experiment in found]
