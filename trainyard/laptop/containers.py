"""A laptop stack's runs as containers: `make up POOL=docker`."""

import os
import shutil
import sys
from contextlib import suppress

from trainyard.contract.outputs import DockerWorkPool
from trainyard.prefect.work_pool import CONTAINER_OF
from trainyard.tools.docker import DockerError, docker

# Where an image has the repository's code.
CODE = "/app"


def work_pool(name: str) -> DockerWorkPool:
    return DockerWorkPool(
        name=name, host_network=sys.platform == "linux", user=f"{os.getuid()}:{os.getgid()}"
    )


def remove(artifact_store: str) -> list[str]:
    """Remove the containers of a stack's runs, ended or not, with what they wrote on their own.

    By their label: it finds them even if what the stack remembers is lost.
    """
    if not shutil.which("docker"):
        return []
    of_stack = ("ps", "--all", "--quiet", "--filter", f"label={CONTAINER_OF}={artifact_store}")
    with suppress(DockerError):  # no engine, no containers
        found = docker(*of_stack).stdout.split()
        if found:
            docker("rm", "--force", "--volumes", *found)
        return found
    return []
