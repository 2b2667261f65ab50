"""The servers in their images, with the commands and variables of the stack's own task definitions.

On a real PostgreSQL that takes TLS only, as RDS does.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.estimate import recorder
from trainyard.contract.outputs import StackOutputs, deploy_environment
from trainyard.delivery import images
from trainyard.delivery.images import Built
from trainyard.tools.docker import docker

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1500),
]

POSTGRES = "postgres:16-alpine"
PASSWORD = "database-password"  # noqa: S105
SECRETS = {
    "FLOWS_PASSWORD": "flows-password",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "admin-password",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "session-key",
    "PGPASSWORD": PASSWORD,
    "PREFECT_SERVER_API_AUTH_STRING": "trainyard:api-password",
    "PREFECT_SERVER_DATABASE_PASSWORD": PASSWORD,
}
OUTPUTS = {
    "stack": "dev",
    "prefect_api_url": "http://prefect:4200/api",
    "tracking_uri": "http://mlflow:5000",
    "artifact_store": "s3://acme/flows",
    "code_dir": "/app",
    "work_pool": {"type": "process", "name": "pool"},
}


http = httpx.Client(timeout=30)  # they have only just started


@dataclass
class Stack:
    """Containers of one network, started as ECS would from the recorded task definitions."""

    network: str
    definitions: dict[str, dict[str, Any]]
    of_runs: dict[str, str]
    """What every run's container is told."""

    def run(self, part: str, image: Built, *options: str) -> str:
        """Start a task's container; gives its name."""
        definition = self.definitions[part]
        variables = {each["name"]: each["value"] for each in definition["environment"]}
        variables |= {each["name"]: SECRETS[each["name"]] for each in definition["secrets"]}
        assert definition["readonlyRootFilesystem"]
        assert definition["linuxParameters"]["initProcessEnabled"]
        return docker(
            *("run", "-d", "--network", self.network, "--user", definition["user"]),
            *("--read-only", "--init", "--cap-drop", "ALL"),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *options,
            image.id,
            *definition["command"],
        ).stdout.strip()

    def finish(self, part: str, image: Built) -> str:
        """Run a task to its end; gives what it said."""
        name = self.run(part, image)
        code = docker("wait", name).stdout.strip()
        said = docker("logs", name)
        assert code == "0", said.stdout[-3000:] + said.stderr[-3000:]
        return said.stdout + said.stderr

    def serve(self, part: str, image: Built, *options: str) -> tuple[str, str]:
        """Start a server and wait until its own health check passes; gives container and URL."""
        definition = self.definitions[part]
        port = definition["portMappings"][0]["containerPort"]
        name = self.run(part, image, "-p", f"127.0.0.1::{port}", *options)
        check = definition["healthCheck"]["command"][1:]
        end = time.monotonic() + 240
        while docker("exec", name, *check, check=False).returncode:
            said = docker("logs", name, check=False)
            assert time.monotonic() < end, said.stdout[-3000:] + said.stderr[-3000:]
            time.sleep(1)
        return name, f"http://{docker('port', name, str(port)).stdout.split()[0]}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, built: dict[str, Built]) -> Iterator[Stack]:
    if docker("image", "inspect", POSTGRES, check=False).returncode:
        docker("pull", POSTGRES)
    recording = recorder.run(
        workerImage=built["worker"].id, mlflowImage=built["mlflow"].id, flowsDatabase=True
    )
    definitions = {
        resource.name.removeprefix("trainyard-dev-").removesuffix("-definition"): container
        for resource, container in recording.containers()
    }
    variables = {e["name"]: e["value"] for e in definitions["mlflow"]["environment"]}
    pool = recording.exports["trainyard"]["work_pool"]
    network = f"trainyard-images-{uuid.uuid4().hex[:8]}"
    made = Stack(network, definitions, pool["environment"])
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=database", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    # As with RDS's force_ssl.
    (folder / "pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
    docker("network", "create", made.network)
    try:
        _start_database(made, folder, variables["PGHOST"], variables["PGUSER"])
        yield made
    finally:
        network = f"network={made.network}"
        names = docker("ps", "-aq", "--filter", network, check=False).stdout.split()
        docker("rm", "-f", "-v", *names, check=False)
        docker("network", "rm", made.network, check=False)


def _start_database(stack: Stack, tls: Path, host: str, user: str) -> None:
    name = docker(
        *("run", "-d", "--network", stack.network, "--network-alias", host),
        *("-e", f"POSTGRES_PASSWORD={PASSWORD}", "-v", f"{tls}:/tls:ro"),
        *("--entrypoint", "sh", POSTGRES, "-c"),
        # PostgreSQL wants its key to be its own.
        "cp /tls/* /var/lib/ && chown postgres /var/lib/*.* && chmod 600 /var/lib/key.pem && "
        "exec docker-entrypoint.sh postgres -c hba_file=/var/lib/pg_hba.conf -c ssl=on "
        "-c ssl_cert_file=/var/lib/cert.pem -c ssl_key_file=/var/lib/key.pem",
    ).stdout.strip()
    end = time.monotonic() + 60
    ready = ("exec", name, "pg_isready", "-h", "127.0.0.1")
    while docker(*ready, check=False).returncode:
        assert time.monotonic() < end, docker("logs", name, check=False).stderr[-2000:]
        time.sleep(0.5)
    # As on RDS, the administrator is no superuser.
    psql = ("exec", name, "psql", "-U", "postgres", "-c")
    docker(*psql, f"CREATE ROLE {user} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'")
    docker(*psql, f"CREATE DATABASE mlflow OWNER {user}")


def await_health(name: str) -> None:
    """Wait until a container's image finds it healthy, by its own HEALTHCHECK."""
    end = time.monotonic() + 60
    while (health := docker("inspect", "-f", "{{.State.Health.Status}}", name).stdout.strip()) != (
        "healthy"
    ):
        assert time.monotonic() < end, health
        time.sleep(0.5)


def test_mlflow_starts_on_what_its_migration_made_and_lets_the_administrator_in(
    stack: Stack, built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stack.finish("mlflow-migrate", built["mlflow"])
    assert "made the database mlflow_auth" in first
    assert "made the database" not in stack.finish("mlflow-migrate", built["mlflow"])

    name, url = stack.serve("mlflow", built["mlflow"], "--health-interval=2s")
    await_health(name)
    admin = ("admin", SECRETS["MLFLOW_AUTH_ADMIN_PASSWORD"])
    search = f"{url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert http.get(search).status_code == 401
    assert http.get(search, auth=("admin", "guessed")).status_code == 401
    assert http.get(search, auth=admin).json()["experiments"][0]["name"] == "Default"
    assert http.get(f"{url}/", auth=admin).status_code == 200
    started = time.monotonic()
    docker("stop", "-t", "60", name)
    assert time.monotonic() - started < 45

    monkeypatch.setitem(SECRETS, "MLFLOW_AUTH_ADMIN_PASSWORD", "another password of 2026")
    assert "has a new password" in stack.finish("mlflow-migrate", built["mlflow"])


def test_prefect_starts_on_what_its_migration_made_and_takes_every_deployment(
    stack: Stack, built: dict[str, Built]
) -> None:
    assert "made the database prefect" in stack.finish("prefect-migrate", built["worker"])
    assert "made the database" not in stack.finish("prefect-migrate", built["worker"])

    _, url = stack.serve("prefect", built["worker"], "--network-alias", "prefect")
    page = http.get(f"{url}/", follow_redirects=True)
    assert "<!DOCTYPE html>" in page.text or "<!doctype html>" in page.text
    count = f"{url}/api/deployments/count"
    assert http.post(count, json={}).status_code == 401
    variables = {
        "PREFECT_API_URL": OUTPUTS["prefect_api_url"],
        "PREFECT_API_AUTH_STRING": SECRETS["PREFECT_SERVER_API_AUTH_STRING"],
        **deploy_environment(StackOutputs.model_validate(OUTPUTS), "flow@sha256:1"),
    }
    said = docker(
        *("run", "--rm", "-i", "--read-only", "--network", stack.network),
        *(f"--env={name}={value}" for name, value in variables.items()),
        *(built["flow"].id, "sh", "-ec"),
        "python - && prefect --no-prompt deploy --all",
        stdin="from trainyard.contract.outputs import StackOutputs\n"
        "from trainyard.prefect.register import register\n"
        f"register(StackOutputs.model_validate({OUTPUTS!r}))",
    )
    auth = ("trainyard", "api-password")
    assert http.post(count, json={}, auth=auth).json() == len(images.entrypoints()), said


COUNT = """
from flows.transactions.database import opened
from flows.platform.settings import load_settings
with opened(load_settings().database) as database:
    print("transactions:", database.count())
"""


def test_flows_get_into_their_own_database_and_into_no_other(
    stack: Stack, built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is there already, in whichever order the migrations come."""
    stack.finish("prefect-migrate", built["worker"])
    first = stack.finish("flows-database-migrate", built["worker"])
    assert "made the user flows" in first
    assert "made the database flows" in first
    assert "made" not in stack.finish("flows-database-migrate", built["worker"])

    def count(password: str, **other: str) -> str:
        variables = {**stack.of_runs, "MLFLOW_TRACKING_URI": "-", "TRAINYARD_ARTIFACT_STORE": "-"}
        variables |= {"PGPASSWORD": password, **other}
        return said_by(
            *("run", "--rm", "-i", "--read-only", "--network", stack.network),
            *(f"--env={name}={value}" for name, value in variables.items()),
            *(built["flow"].id, "python", "-c", COUNT),
        )

    assert "transactions: 0" in count("flows-password")
    assert "password authentication failed" in count("guessed")
    for other in ("mlflow", "prefect"):
        url = stack.of_runs["TRAINYARD_FLOWS_DATABASE"].removesuffix("flows") + other
        said = count("flows-password", TRAINYARD_FLOWS_DATABASE=url)
        assert f'permission denied for database "{other}"' in said

    monkeypatch.setitem(SECRETS, "FLOWS_PASSWORD", "another password of 2026")
    stack.finish("flows-database-migrate", built["worker"])
    assert "transactions: 0" in count("another password of 2026")
    assert "password authentication failed" in count("flows-password")


def said_by(*arguments: str) -> str:
    ended = docker(*arguments, check=False)
    return ended.stdout + ended.stderr
