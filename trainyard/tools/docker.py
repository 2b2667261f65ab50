"""The Docker client."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache

from trainyard.tools.errors import StackError


class DockerError(StackError):
    """No engine answers, or a command failed; the message says which and why."""


@cache  # but for a failure: the engine may be started meanwhile
def client() -> str:
    """The path of a Docker client whose engine answers; DockerError where there is none."""
    why = "there is no `docker` on PATH: https://docs.docker.com/engine/install/"
    for found in filter(None, map(shutil.which, ("/usr/bin/docker", "docker"))):
        asked = subprocess.run([found, "info"], capture_output=True, text=True)  # noqa: S603
        if asked.returncode == 0:
            return found
        why = f"Docker's engine doesn't answer: {asked.stderr.strip().splitlines()[0]}"
    raise DockerError(why)


def docker(
    *arguments: str,
    stdin: str = "",
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(  # noqa: S603
        [client(), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_BUILDKIT": "1", **(environment or {})},
    )
    if check and done.returncode:
        raise DockerError(f"`docker {' '.join(arguments)}` failed:\n{done.stderr[-4000:]}")
    return done
