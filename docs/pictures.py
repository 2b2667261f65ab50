"""Take the docs' pictures from the pages of a running laptop stack, in headless Chromium.

`make pictures` runs it after a `make demo KEEP=1`. It starts the runs of docs/tutorials.md itself.
"""

import json
import shutil
import sys
import time
from io import BytesIO
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from flows.platform.synthetic_api import Answer, serving
from trainyard.paths import REPO

IMAGES = REPO / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLORS = 128  # enough for pages, and a picture has a third of the bytes
WIDTH, HEIGHT = 1280, 760
DEMOS = (
    "wine-train/wine-train",
    "transactions-train/transactions-train",
    "stars/stars",
    "iris-train/iris-train",
    "dvc-repro/iris",  # which needs `make .venv-dvc/.dvc`
    "train-and-benchmark/benchmark-runner",
)


def main() -> None:
    """Take all pictures of the stack that `make up` started."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed: install Chromium first")
    outputs_file = REPO / ".trainyard" / "outputs.json"
    if not outputs_file.exists():
        sys.exit("the laptop stack isn't running: `make demo KEEP=1` first")
    outputs = json.loads(outputs_file.read_text())
    login = outputs_file.with_name("prefect-login").read_text().strip()
    user, _, password = login.partition(":")
    prefect = httpx.Client(
        base_url=outputs["prefect_api_url"], auth=(user, password), trust_env=False
    )
    ui, mlflow = outputs["prefect_api_url"].removesuffix("/api"), outputs["tracking_uri"]
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(color_scheme="light")
        log_in(page, ui, login)
        taxi(page, prefect, ui, mlflow)
        fraud(page, prefect, ui, mlflow)
        failed_ingest(page, prefect, ui)
        for deployment in DEMOS:
            demo(page, prefect, ui, deployment)
        chromium.close()


def log_in(page: Page, ui: str, login: str) -> None:
    """Answer what Prefect's pages ask for once."""
    page.goto(ui)
    page.get_by_placeholder("admin:pass").fill(login)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard**")


def taxi(page: Page, prefect: httpx.Client, ui: str, mlflow: str) -> None:
    """The newest completed training run, and its trials compared in MLflow."""
    run = _newest(prefect, "taxi-train")
    if run is None or run["state_type"] != "COMPLETED":
        sys.exit("the newest taxi-train run isn't completed: `make demo KEEP=1` first")
    _take(page, "prefect-run", f"{ui}/runs/flow-run/{run['id']}", run["name"])
    search = {"max_results": 1, "filter": f"tags.`prefect.flow_run_id` = '{run['id']}'"}
    found = httpx.post(
        f"{mlflow}/api/2.0/mlflow/experiments/search", json=search, trust_env=False
    ).raise_for_status()
    experiment = found.json()["experiments"][0]["experiment_id"]
    charts = "workflowType=machine_learning&compareRunsMode=CHART"
    order = "orderByKey=metrics.%60rmse_valid%60&orderByAsc=true"
    runs = f"{mlflow}/#/experiments/{experiment}/runs?{charts}&{order}"
    _take(page, "mlflow-comparison", runs, "linear baseline", fold="benchmark")


def fraud(page: Page, prefect: httpx.Client, ui: str, mlflow: str) -> None:
    """The deployments, a custom run with the tutorial's parameters, its graph, and its version."""
    _take(page, "fraud-deployments", f"{ui}/deployments", "fraud-train")
    deployment = _read(prefect, "/deployments/name/fraud-train/fraud-train")["id"]
    page.goto(f"{ui}/deployments/deployment/{deployment}/run")
    page.get_by_text("data_path").first.wait_for()
    for place, value in enumerate(("synthetic", "1.0.1", "prod")):  # data_path, version, stage
        page.locator("textarea").nth(place).fill(value)
    _shoot(page, "fraud-custom-run")
    before = _newest(prefect, "fraud-train")
    page.get_by_role("button", name="Submit").click()
    while (run := _newest(prefect, "fraud-train")) is None or run == before:
        time.sleep(1)
    run = _ended(prefect, run["id"])
    _take(page, "fraud-run", f"{ui}/runs/flow-run/{run['id']}", run["name"])
    model = f"{mlflow}/#/models/fraud-classifier?workflowType=machine_learning"
    _take(page, "fraud-version", model, "fraud-team", 820)


def demo(page: Page, prefect: httpx.Client, ui: str, name: str) -> None:
    """A run of a deployment with its own parameters, as it ended: its graph and its log."""
    deployment = _read(prefect, f"/deployments/name/{name}")["id"]
    started = prefect.post(f"/deployments/{deployment}/create_flow_run", json={})
    run = _ended(prefect, started.raise_for_status().json()["id"])
    _take(page, f"{name.split('/')[1]}-run", f"{ui}/runs/flow-run/{run['id']}", run["name"])


def failed_ingest(page: Page, prefect: httpx.Client, ui: str) -> None:
    """A run whose API always answers 500: it has failed after its task's three retries."""
    deployment = _read(prefect, "/deployments/name/transactions-ingest/transactions-ingest")["id"]
    with serving(lambda path: Answer(b"out of order", 500)) as api:
        given = {"parameters": {"api": api, "give_up_after": 100}}
        started = prefect.post(f"/deployments/{deployment}/create_flow_run", json=given)
        run = _ended(prefect, started.raise_for_status().json()["id"])
    url = f"{ui}/runs/flow-run/{run['id']}"
    # as high as the log is before its traceback, which has this machine's paths
    _take(page, "transactions-failed", url, "Retries are exhausted", 1261)


def _take(
    page: Page, name: str, url: str, shows: str, height: int = HEIGHT, fold: str = ""
) -> None:
    """Take a page's picture once it shows a text; `fold` is the title of a part to fold away."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.goto(url)
    page.get_by_text(shows).first.wait_for()
    assistant = page.get_by_role("button", name="Close", exact=True)  # MLflow's panel
    if assistant.count():
        assistant.click()
    if fold:
        page.get_by_text(fold).first.click()
    _shoot(page, name)


def _shoot(page: Page, name: str) -> None:
    page.wait_for_timeout(4000)  # a graph draws itself after its data is there
    picture = Image.open(BytesIO(page.screenshot()))
    picture.quantize(COLORS).save(IMAGES / f"{name}.png", optimize=True)


def _newest(prefect: httpx.Client, flow: str) -> dict[str, Any] | None:
    """The run of a flow that started last."""
    asked = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    found = prefect.post("/flow_runs/filter", json=asked).raise_for_status().json()
    return found[0] if found else None


def _ended(prefect: httpx.Client, run: str) -> dict[str, Any]:
    """A run, once it is over."""
    while True:
        found = _read(prefect, f"/flow_runs/{run}")
        if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return found
        time.sleep(1)


def _read(prefect: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = prefect.get(path).raise_for_status().json()
    return found


if __name__ == "__main__":
    main()
