"""Registries on loopback, and small repositories whose images are published to one."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from tests.conftest import ROOT, docker_answers, emulated_aws, free_port
from trainyard.contract.naming import BUILD_CACHE, IMAGES
from trainyard.tools.docker import docker

# What an entrypoint is loaded with in the real images, in the least that does it.
PREFECT = "def load_flow_from_entrypoint(name, **_): exec(open(name.split(':')[0]).read())"
# The real Dockerfile's base, targets and labels. The large file makes a push last a moment.
DOCKERFILE = """
{base}
FROM ${{BASE}} AS base
FROM base AS flow-packages
COPY requirements/flow.txt /requirements/
RUN mkdir -p /venv/prefect && head -c 30000000 /dev/urandom > /venv/packages
RUN echo "{prefect}" > /venv/prefect/flows.py
FROM base AS mlflow-packages
COPY requirements/mlflow.txt /requirements/
RUN mkdir /venv
FROM base AS code
COPY flows /flow/flows
COPY trainyard/prefect/migrate.py /worker/trainyard/prefect/
COPY docker/mlflow /mlflow/docker/mlflow
FROM base AS mlflow
COPY --from=mlflow-packages /venv /venv
COPY --from=code /mlflow /app
FROM base AS flow
COPY --from=flow-packages /venv /venv
COPY --from=code /flow /app
ENV PYTHONPATH=/app:/venv
WORKDIR /app
ARG REVISION=""
LABEL org.opencontainers.image.revision=$REVISION
FROM base AS worker
COPY --from=flow-packages /venv /venv
COPY --from=code /worker /app
"""
LABEL = "org.opencontainers.image.revision"
# ECR's user, a password, and its hash by bcrypt, which is all that the registry takes.
USER, PASSWORD = "AWS", "open-sesame"
PASSWORD_HASH = "$2b$04$OfPruL0dDo6uBUWPKpXac.WJCLYY/1yvOdRXxaqFgbC7Jn6BN/f8i"  # noqa: S105
KEY = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class EmulatedRegistry:
    """The emulator's ECR: Docker and AWS's API see the same images."""

    url: str

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def environment(self) -> dict[str, str]:
        """What leads AWS's clients there."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def ecr(self) -> Any:
        return boto3.Session("test", "test", region_name="us-east-1").client(
            "ecr", endpoint_url=self.url
        )

    def make(self, prefix: str) -> str:
        """Make an account's repositories; gives what TRAINYARD_REGISTRY calls them."""
        for name in (*IMAGES, BUILD_CACHE):
            self.ecr.create_repository(
                repositoryName=f"{prefix}/{name}", imageTagMutability="IMMUTABLE"
            )
        return f"{self.host}/{prefix}"

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository."""
        found = self.ecr.describe_images(repositoryName=repository)["imageDetails"]
        return sorted(tag for image in found for tag in image["imageTags"])

    def inspect(self, image: str) -> dict[str, Any]:
        """An image as another client reads it."""
        command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{image}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def forget_locally(self) -> None:
        """Remove its images from this machine's engine."""
        for image in docker("images", "-q", f"{self.host}/*/*").stdout.split():
            docker("rmi", "-f", image, check=False)


@contextmanager
def emulated(folder: Path) -> Iterator[EmulatedRegistry]:
    """ECR in an emulator of its own."""
    if not shutil.which("skopeo"):
        pytest.skip("images are read by skopeo: apt install skopeo")
    if not docker_answers():
        pytest.skip("images need more: no Docker engine answers")
    with emulated_aws(folder) as url:
        registry = EmulatedRegistry(url)
        yield registry
        registry.forget_locally()


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """A registry that opens to KEY only, as ECR does and the emulator's doesn't; gives its host."""
    if not shutil.which("docker-registry"):
        pytest.skip("no registry that wants a login: apt install docker-registry")
    if not docker_answers():
        pytest.skip("images need more: no Docker engine answers")
    host = f"127.0.0.1:{free_port()}"
    (folder / "htpasswd").write_text(f"{USER}:{PASSWORD_HASH}\n")
    config = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.json").write_text(json.dumps(config))  # which is YAML too
    command = ["docker-registry", "serve", str(folder / "config.json")]
    log = folder / "log.txt"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as server,
    ):
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    httpx.get(f"http://{host}/v2/")
                    break
                except httpx.HTTPError:
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(0.1)
            yield host
        finally:
            server.terminate()


@dataclass
class Repository:
    """A repository with a Dockerfile that builds in seconds, and `make publish` in it."""

    folder: Path
    registry: EmulatedRegistry
    prefix: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        temporary = self.folder.with_name(f"{self.folder.name}-tmp")  # what a kill leaves behind
        temporary.mkdir(parents=True)
        self.environment = {
            **os.environ,
            **self.registry.environment,
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(self.folder),
            "TRAINYARD_REGISTRY": self.registry.make(self.prefix),
        }
        for name in ("infra", "docker", "requirements", "flows"):
            (self.folder / name).mkdir(parents=True)
        for path in ("docker/smoke.py", ".dockerignore", "infra/README.md"):
            shutil.copy(ROOT / path, self.folder / path)
        for folder in ("trainyard", "docker/mlflow"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, self.folder / folder, ignore=ignored)
        for name in ("uv", "flow", "mlflow"):
            self.write(f"requirements/{name}.txt", "")
        real = (ROOT / "docker/Dockerfile").read_text()
        base = "\n".join(re.findall(r"^ARG BASE=.*$|^FROM .* AS pinned$", real, re.MULTILINE))
        self.write("docker/Dockerfile", DOCKERFILE.format(base=base, prefect=PREFECT))
        self.write("docker/slim", "")
        self.write(".gitignore", "/.trainyard/\n__pycache__/\n.env\n")
        self.write(
            "prefect.yaml", "deployments: [{name: ride, entrypoint: 'flows/ride.py:ride'}]\n"
        )
        self.write("flows/ride.py", "def ride(): ...\n")
        self.git("init", "-q")
        self.commit()

    def write(self, path: str, text: str) -> None:
        """Write one of its files."""
        (self.folder / path).write_text(text)

    def git(self, *arguments: str) -> str:
        """Run git in it."""
        who = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self) -> str:
        """Commit all of it; gives the commit."""
        self.git("add", "-A")
        self.git("commit", "-qm", "change")
        return self.git("rev-parse", "HEAD")

    def start(self) -> "subprocess.Popen[str]":
        """Begin to publish."""
        return subprocess.Popen(
            [sys.executable, "-m", "trainyard", "publish"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def publish(self, *, fails: bool = False) -> str:
        """Publish; gives what the user sees."""
        process = self.start()
        said, _ = process.communicate(timeout=240)
        assert (process.returncode != 0) == fails, said
        return said

    def kill(self, process: "subprocess.Popen[str]") -> None:
        """Kill a publish with all that it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    @property
    def release(self) -> dict[str, Any] | None:
        """What is written down."""
        path = self.folder / ".trainyard/release.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found
