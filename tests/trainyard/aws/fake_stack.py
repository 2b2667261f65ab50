"""A stack that isn't there, as far as the commands see it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainyard.aws import stack as operations
from trainyard.contract.readiness import Servers, gone, ready
from trainyard.tools.errors import StackError

OUTPUTS: dict[str, Any] = {
    "stack": "dev",
    "prefect_api_url": "https://api.prefect.cloud/api",
    "tracking_uri": "http://mlflow.dev.trainyard.internal:5000",
    "artifact_store": "s3://bucket/flows",
    "code_dir": "/app",
    "work_pool": {
        "type": "ecs",
        "name": "trainyard-dev",
        "region": "eu-central-1",
        "cluster_arn": "arn",
        "vpc_id": "vpc-1",
        "subnet_ids": ["subnet-1"],
        "security_group_ids": ["sg-1"],
        "assign_public_ip": True,
        "capacity_provider": "FARGATE",
        "cpu_architecture": "X86_64",
        "execution_role_arn": "arn",
        "task_role_arn": "arn",
        "log_group": "group",
        "queue_name": "queue",
        "environment": {},
        "secrets": {},
        "api_secret_variable": "PREFECT_API_KEY",
        "api_secret": "arn",
    },
}


class World:
    """A stack, its parameter and its tasks: as much of AWS and Pulumi as `up` sees."""

    def __init__(self, servers: Servers, *, image: str = "f1"):
        self.servers, self.image = servers, image
        self.stack = "dev"
        self.noted: dict[str, Any] = {}
        self.parameters: dict[str, str] = {}
        self.log: list[str] = []
        self.running: set[str] = set()
        self.broken: str | None = None
        self.interrupted = False

    # pulumi
    def up(self) -> None:
        self._do("up")
        may = ready(self.noted, self.servers, worker_image="w1" if self.image else "")
        ours = {"mlflow"} | ({"prefect"} if self.servers.prefect else set())
        self.running = {name for name in ours | {"worker"} if getattr(may, name)}
        held = (ours | {"worker"}) - self.running
        held |= {"flows"} if self.servers.flows and not may.flows else set()
        self.held = sorted(held | set(gone(self.noted, self.servers)))

    def outputs(self) -> dict[str, Any]:
        return {
            "held_back": self.held,
            "flow_image": self.image,
            "servers": vars(self.servers),
            "next": "make deploy",
            "tasks": {},
            "trainyard": OUTPUTS,
        }

    # aws
    def run_task(self, name: str, command: Sequence[str] | None = None, **waiting: Any) -> None:
        self.waiting = waiting
        self._do(" ".join([name, *(command or [])[-1:]]))
        if name == "deployer":
            assert "prefect" in self.running, "registered before the server runs"

    def write_parameter(self, name: str, value: str) -> None:
        self.parameters[name.removeprefix("/trainyard/dev/")] = value
        self.noted = json.loads(self.parameters.get("ready", "{}"))

    def read_secret(self, arn: str) -> str:
        assert arn == OUTPUTS["work_pool"]["api_secret"]
        return "pnu_kept"

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        assert environment["TRAINYARD_IMAGE"] == self.image
        assert environment.get("PREFECT_API_KEY") == (
            None if "PREFECT_API_KEY" in os.environ else "pnu_kept"
        )
        assert command[3] == "/trainyard/dev/outputs"
        assert (code / "trainyard/prefect/__main__.py").exists()
        self._do(" ".join(["here", *command[4:]]))

    def _do(self, step: str) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        if step == self.broken:
            self.broken = None
            raise StackError(step)
        self.log.append(step)

    def make_up(self) -> list[str]:
        self.log = []
        operations.up(self, connect=lambda outputs: self)  # type: ignore[arg-type]
        return self.log

    def make_deploy(self) -> list[str]:
        self.log = []
        operations.deploy(self, connect=lambda outputs: self)  # type: ignore[arg-type]
        return self.log
