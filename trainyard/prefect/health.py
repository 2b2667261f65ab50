"""What `make doctor` asks of a stack's services, from here or from inside the VPC (Deployer)."""

import importlib.metadata
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpx

from trainyard.contract.outputs import StackOutputs


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. What needs nothing to be done is fine."""

    what: str
    found: str
    todo: str = ""
    optional: bool = False
    """It may be so: some commands will miss it."""

    @property
    def failed(self) -> bool:
        return bool(self.todo) and not self.optional

    @property
    def line(self) -> str:
        mark = "✗" if self.failed else "?" if self.todo else "✓"
        todo = f"\n{'':26}-> {self.todo}" if self.todo else ""
        return f"{mark} {self.what:<23} {self.found}{todo}"


def tell(checks: Iterable[Check]) -> int:
    """Say each check as it is made; gives the exit code."""
    failed = 0
    for check in checks:
        print(check.line, flush=True)
        failed += check.failed
    return 1 if failed else 0


def guarded(what: str, make: Callable[[], Check], todo: str) -> Check:
    """A check whose own failure is what it found: the others go on."""
    try:
        return make()
    except Exception as error:  # whatever a library says of what isn't there
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(what, first[:300], todo)


def check_services(outputs: StackOutputs) -> Iterable[Check]:
    """Prefect and MLflow: there, of versions that fit, as registered, with a worker online."""
    up = f"make up STACK={outputs.stack}"
    yield guarded(
        "Prefect",
        partial(_prefect, outputs),
        f"is it up, and the key right? `make doctor` says of its service; `{up}` starts it",
    )
    for what, make in (("work pool", _pool), ("worker", _worker), ("deployments", _deployments)):
        yield guarded(what, partial(make, outputs), up)
    yield guarded("MLflow", partial(_mlflow, outputs), up)


def _ask(outputs: StackOutputs, method: str, path: str, **body: object) -> httpx.Response:
    # Prefect's own client makes many tries; here the first answer counts.
    headers, auth = {}, None
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    elif open_by := os.environ.get("PREFECT_API_AUTH_STRING"):
        name, _, password = open_by.partition(":")
        auth = httpx.BasicAuth(name, password)
    return httpx.request(
        method,
        f"{outputs.prefect_api_url}{path}",
        headers=headers,
        auth=auth,
        json=body if method == "POST" else None,
        timeout=20,
    ).raise_for_status()


def _prefect(outputs: StackOutputs) -> Check:
    ours = importlib.metadata.version("prefect")
    if "/accounts/" in outputs.prefect_api_url:
        _ask(outputs, "POST", "/work_pools/filter", limit=1)
        return Check("Prefect", f"Cloud answers, client {ours}")
    theirs = str(_ask(outputs, "GET", "/admin/version").json())
    fits = theirs.split(".")[:2] == ours.split(".")[:2]
    todo = "" if fits else "they should be of one minor version: release again from this commit"
    return Check("Prefect", f"server {theirs}, client {ours}", todo)


def _pool(outputs: StackOutputs) -> Check:
    from trainyard.prefect.work_pool import base_job_template

    name = outputs.work_pool.name
    pool = _ask(outputs, "GET", f"/work_pools/{name}").json()
    if pool["is_paused"]:
        return Check("work pool", f"{name} is paused", f"prefect work-pool resume {name}")
    if pool["base_job_template"] != base_job_template(outputs):
        found = f"{name} isn't as `register` makes it"
        return Check("work pool", found, f"make deploy STACK={outputs.stack}")
    return Check("work pool", f"{name} is as registered")


def _worker(outputs: StackOutputs) -> Check:
    name = outputs.work_pool.name
    workers = _ask(outputs, "POST", f"/work_pools/{name}/workers/filter").json()
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if not online:
        todo = f"its service's last stopped task says why; make up STACK={outputs.stack} starts it"
        return Check("worker", f"no worker of {name} is online", todo)
    return Check("worker", f"{len(online)} online")


def _deployments(outputs: StackOutputs) -> Check:
    pool = {"name": {"any_": [outputs.work_pool.name]}}
    count = int(_ask(outputs, "POST", "/deployments/count", work_pools=pool).json())
    if not count:
        todo = f"make deploy STACK={outputs.stack}"
        return Check("deployments", "there are none", todo, optional=True)
    return Check("deployments", str(count))


def _mlflow(outputs: StackOutputs) -> Check:
    uri = outputs.tracking_uri
    if _private(uri) and not _private(outputs.prefect_api_url):
        return Check("MLflow", "private: not reached from here; `make smoke` goes there")
    httpx.get(f"{uri}/health", timeout=20).raise_for_status()
    version = httpx.get(f"{uri}/version", timeout=20)
    # It may keep its version to those who have its password.
    told = version.text if version.is_success else "it answers"
    ours = importlib.metadata.version("mlflow-skinny")
    fits = not version.is_success or told.split(".")[0] == ours.split(".")[0]
    todo = "" if fits else "they should be of one major version: update requirements/"
    return Check("MLflow", f"server {told}, client {ours}", todo)


def _private(url: str) -> bool:
    """Whether only a stack's VPC knows the name."""
    return (urlsplit(url).hostname or "").endswith(".trainyard.internal")
