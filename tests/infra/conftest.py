"""An emulator on this machine, without Docker: enough for S3, IAM and secrets."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-emulator/bin/python"


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the rehearsal's emulator answers; IAM is enforced."""
    if not PYTHON.exists():
        pytest.skip("there is no emulator: make .venv-emulator/.emulator")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        # It would remove a rehearsal's database, which it takes for an old one of its own.
        "DOCKER_HOST": "unix:///without-docker",
    }
    log = (tmp_path_factory.mktemp("emulator") / "log").open("w")
    program = ROOT / "infra/rehearsal/emulator/emulator.py"
    process = subprocess.Popen([PYTHON, program], env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/_ministack/health", timeout=2)  # noqa: S310
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    yield address
    process.terminate()
    process.wait(10)
