"""`make up POOL=docker`, typed: a laptop's runs as containers of the flow image."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tests.conftest import ROOT
from tests.e2e.laptop.clones import Clone, read_outputs, wait_for
from trainyard.laptop.services import DOCKER_POOL
from trainyard.prefect.register import register_automations
from trainyard.prefect.work_pool import CONTAINER_OF
from trainyard.tools.docker import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone with what the flow image is built from, in a folder with spaces in its name."""
    folder = tmp_path_factory.mktemp("containers") / "a clone of mine"
    for part in ("docker", "flows", "requirements", "trainyard"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for file in (".dockerignore", "prefect.yaml"):
        shutil.copy(ROOT / file, folder)
    git = ("git", "-c", "user.name=me", "-c", "user.email=me@example.com", "-C", str(folder))
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "a copy")):
        subprocess.run([*git, *command], check=True)
    clone = Clone(folder)
    try:
        yield clone
    finally:
        clone.run("down")
        clone.end()


def containers(clone: Clone) -> list[dict[str, Any]]:
    """Those of the clone's runs, as `docker inspect` shows them."""
    label = f"label={CONTAINER_OF}={clone.home}/artifacts"
    names = docker("ps", "--all", "--quiet", "--filter", label).stdout.split()
    return json.loads(docker("inspect", *names).stdout) if names else []


def stacks_image(clone: Clone) -> str:
    return str(json.loads((clone.home / "state.json").read_text())["image"])


@contextmanager
def prefect(clone: Clone) -> Iterator[SyncPrefectClient]:
    opened = {
        PREFECT_API_URL: read_outputs(clone)["prefect_api_url"],
        PREFECT_API_AUTH_STRING: ":".join(clone.login),
    }
    with temporary_settings(opened), get_client(sync_client=True) as client:
        yield client


def test_a_run_is_a_locked_down_container_of_the_flow_image(clone: Clone) -> None:
    said = clone.run("demo", "--flow", "wine", "--pool", "docker", "--keep")
    assert "# wine-cultivar version 1 is the new champion" in said
    (container,) = containers(clone)
    assert container["Image"] == stacks_image(clone)
    assert container["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] == host["MemorySwap"] == 4096 * 1024**2
    assert "polls the pool trainyard-docker" in clone.run("status")


def test_the_stack_goes_on_as_it_is_and_is_asked_for_nothing_else(clone: Clone) -> None:
    assert "already running" in clone.run("up")
    said = clone.run("up", "--pool", "process", fails=True)
    assert "its runs are containers: `make down` first" in said
    for pool in (["--pool", "docker"], []):
        said = clone.run("demo", *pool, "--data", str(clone.folder), fails=True)
        assert "a container sees no folder of this machine" in said


def test_a_killed_container_starts_again_and_one_without_memory_says_so(clone: Clone) -> None:
    with prefect(clone) as client:
        # sooner than after 45 s
        list(register_automations(client, DOCKER_POOL, settle=10))
        deployment = client.read_deployment_by_name("wine-train/wine-train")
        before = {each["Id"] for each in containers(clone)}

        run = client.create_flow_run_from_deployment(deployment.id)
        started = list[str]()

        def running() -> bool:
            new = [c for c in containers(clone) if c["Id"] not in before and c["State"]["Running"]]
            started.extend(each["Id"] for each in new)
            return bool(new) and client.read_flow_run(run.id).state_name == "Running"

        wait_for("its container runs", running, seconds=60)
        docker("kill", started[0])
        wait_for(
            "it completes",
            lambda: client.read_flow_run(run.id).state_name == "Completed",
            seconds=180,
        )
        assert client.read_flow_run(run.id).run_count == 2
        states = client.read_flow_run_states(run.id)
        assert any("exited with non-zero status code 137" in (s.message or "") for s in states)

        small = client.create_flow_run_from_deployment(deployment.id, job_variables={"memory": 64})

        def told() -> bool:
            states = client.read_flow_run_states(small.id)
            return any("likely due to an out-of-memory" in (s.message or "") for s in states)

        wait_for("it says that it had too little memory", told, seconds=60)
        client.delete_flow_run(small.id)


def test_a_dead_workers_runs_are_not_left_to_go_on_beside_their_next_start(clone: Clone) -> None:
    with prefect(clone) as client:
        deployment = client.read_deployment_by_name("wine-train/wine-train")
        client.create_flow_run_from_deployment(deployment.id)
        wait_for("it runs", lambda: any(c["State"]["Running"] for c in containers(clone)))
        before = {each["Id"] for each in containers(clone)}
        for process in clone.processes():
            if "worker" in process.cmdline():
                process.kill()
        assert "✓ worker" in clone.run("up")
        assert before.isdisjoint(each["Id"] for each in containers(clone))


def test_a_newer_image_is_the_environments_too(clone: Clone) -> None:
    before = stacks_image(clone)
    flow = clone.folder / "flows/wine/train.py"
    flow.write_text(f"{flow.read_text()}# changed\n")
    assert "already running" in clone.run("up", "--pool", "docker")
    assert stacks_image(clone) != before
    assert f"export TRAINYARD_IMAGE={stacks_image(clone)}\n" in (clone.home / "env").read_text()


def test_after_a_restart_of_the_machine_runs_are_containers_as_before(clone: Clone) -> None:
    image = stacks_image(clone)
    for process in clone.processes():
        process.kill()
    assert "polls the pool trainyard-docker" in clone.run("up")
    assert stacks_image(clone) == image


def test_down_leaves_no_container(clone: Clone) -> None:
    clone.run("down")
    assert not containers(clone)
    assert not clone.processes()


def test_deployments_of_containers_are_not_forgotten_by_a_stack_of_processes(clone: Clone) -> None:
    assert "`make deploy` brings them to trainyard" in clone.run("up")
    clone.run("deploy")
    clone.run("down")
    assert "make deploy" not in clone.run("up")
