"""Take the pages' pictures for README and docs from a running stack, in headless Chromium.

`make pictures` runs it after a `make demo KEEP=1` and a run of dvc-repro/iris.
"""

import json
import shutil
import sys
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

from trainyard.paths import REPO

IMAGES = REPO / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Take pictures of the newest completed runs of taxi-train and dvc-repro."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed: install Chromium first")
    outputs_file = REPO / ".trainyard" / "outputs.json"
    if not outputs_file.exists():
        sys.exit("the laptop stack isn't running: `make demo KEEP=1` first")
    outputs = json.loads(outputs_file.read_text())
    login = outputs_file.with_name("prefect-login").read_text().strip()
    api, mlflow = outputs["prefect_api_url"], outputs["tracking_uri"]
    run = _newest_run(api, login, "taxi-train", "make demo KEEP=1")
    dvc_run = _newest_run(api, login, "dvc-repro", "prefect deployment run dvc-repro/iris --watch")
    experiment = _ask(
        f"{mlflow}/api/2.0/mlflow/experiments/search",
        {"max_results": 1, "filter": f"tags.`prefect.flow_run_id` = '{run['id']}'"},
    )["experiments"][0]["experiment_id"]

    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 760}, color_scheme="light")
        log_in(page, api.removesuffix("/api"), login)
        _prefect_run(page, api.removesuffix("/api"), run, "prefect-run.png")
        _prefect_run(page, api.removesuffix("/api"), dvc_run, "dvc-repro.png")
        charts = "workflowType=machine_learning&compareRunsMode=CHART"
        order = "orderByKey=metrics.%60rmse_valid%60&orderByAsc=true"
        _mlflow_comparison(page, f"{mlflow}/#/experiments/{experiment}/runs?{charts}&{order}")
        chromium.close()


def log_in(page: Page, ui: str, login: str) -> None:
    """Answer what Prefect's pages ask for once."""
    page.goto(ui)
    page.get_by_placeholder("admin:pass").fill(login)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard**")


def _newest_run(api: str, login: str, flow: str, command: str) -> dict[str, str]:
    runs: list[dict[str, str]] = _ask(
        f"{api}/flow_runs/filter",
        {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
            "sort": "END_TIME_DESC",
            "limit": 1,
        },
        login,
    )
    if not runs:
        sys.exit(f"no completed {flow} run: `{command}` first")
    return runs[0]


def _prefect_run(page: Page, ui: str, run: dict[str, str], file: str) -> None:
    page.goto(f"{ui}/runs/flow-run/{run['id']}")
    page.get_by_text(run["name"]).first.wait_for()
    page.wait_for_timeout(4000)  # the graph draws itself after its data is there
    page.screenshot(path=IMAGES / file)


def _mlflow_comparison(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_text("linear baseline").first.wait_for()
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant's panel
    page.wait_for_timeout(4000)
    page.screenshot(path=IMAGES / "mlflow-comparison.png")


def _ask(url: str, question: dict[str, object], login: str = ":") -> Any:
    user, _, password = login.partition(":")
    answer = httpx.post(url, json=question, auth=(user, password), trust_env=False)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    main()
