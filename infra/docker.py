"""The Docker client."""

import os
import shutil
import subprocess
from collections.abc import Mapping


class DockerError(Exception):
    """No engine answers, or a command failed; the message says which and why."""


def docker_command() -> str | None:
    """A Docker client whose engine answers."""
    for candidate in ("/usr/bin/docker", "docker"):
        found = shutil.which(candidate)
        if found and subprocess.run([found, "info"], capture_output=True).returncode == 0:  # noqa: S603
            return found
    return None


def docker(
    *arguments: str,
    stdin: str = "",
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a docker command to its end."""
    command = docker_command()
    if command is None:
        raise DockerError("no Docker engine answers: install one, or start it")
    done = subprocess.run(  # noqa: S603
        [command, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_BUILDKIT": "1", **(environment or {})},
    )
    if check and done.returncode:
        raise DockerError(f"`docker {' '.join(arguments)}` failed:\n{done.stderr[-4000:]}")
    return done
