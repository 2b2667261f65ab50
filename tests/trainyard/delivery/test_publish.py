"""`make publish` on a real registry, with images that build in seconds."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.trainyard.delivery.registries import LABEL, EmulatedRegistry, Repository
from trainyard.contract.naming import IMAGES
from trainyard.delivery import images, publish
from trainyard.delivery.registry import Registry
from trainyard.tools.docker import DockerError, docker


@pytest.fixture(scope="module")
def rides(registry: EmulatedRegistry, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose tests follow each other, as its commits do."""
    return Repository(tmp_path_factory.mktemp("rides"), registry, "rides")


@pytest.fixture(scope="module")
def published(rides: Repository) -> Repository:
    """The same with all published, which is how each test leaves it."""
    rides.publish()
    return rides


def digests(repository: Repository) -> dict[str, str]:
    assert repository.release
    found: dict[str, str] = repository.release["images"]
    return found


@pytest.mark.docker
def test_a_push_that_was_killed_is_finished_by_the_next_publish(
    rides: Repository, registry: EmulatedRegistry
) -> None:
    process = rides.start()
    end = time.monotonic() + 120
    # A push begins as soon as its image is built.
    while not docker("images", "-q", f"{registry.host}/rides/*").stdout and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
    rides.kill(process)
    assert registry.tags("rides/flow") == []
    assert rides.release is None

    said = rides.publish()
    commit = rides.git("rev-parse", "HEAD")
    assert rides.release
    assert rides.release["commit"] == commit
    for image in IMAGES:
        (tag, *_) = registry.tags(f"rides/{image}")
        found = registry.inspect(f"{registry.host}/rides/{image}:{tag}")
        assert digests(rides)[image] == f"{registry.host}/rides/{image}@{found['Digest']}"
    assert registry.inspect(digests(rides)["flow"])["Labels"][LABEL] == commit
    assert "flow: flows/ride.py:ride load" in said


@pytest.mark.docker
def test_the_same_content_is_not_built_again(published: Repository) -> None:
    before = digests(published)
    for path in ("README.md", "infra/README.md", "requirements/dev.txt"):
        published.write(path, "text\n")
    commit = published.commit()
    started = time.monotonic()
    said = published.publish()
    assert time.monotonic() - started < 30
    assert "building" not in said
    assert "trying" not in said
    assert digests(published) == before
    assert published.release
    assert published.release["commit"] == commit


@pytest.mark.docker
def test_only_what_a_change_is_in_is_built(
    published: Repository, registry: EmulatedRegistry
) -> None:
    before = digests(published)
    published.write("flows/ride.py", "def ride(): return 1\n")
    commit = published.commit()
    published.publish()
    after = digests(published)
    assert {image for image in IMAGES if after[image] != before[image]} == {"flow"}
    assert registry.inspect(after["flow"])["Labels"][LABEL] == commit


@pytest.mark.docker
def test_a_flow_that_does_not_load_is_not_released(
    published: Repository, registry: EmulatedRegistry
) -> None:
    before = published.release
    published.write("flows/ride.py", "import no_such_module\n")
    published.commit()
    said = published.publish(fails=True)
    assert "No module named 'no_such_module'" in said
    assert "Nothing was released" in said
    assert published.release == before

    # It is in the registry now. The next publish takes it from there, and finds the same.
    registry.forget_locally()
    said = published.publish(fails=True)
    assert "building" not in said
    assert "No module named 'no_such_module'" in said
    assert published.release == before

    published.write("flows/ride.py", "def ride(): return 2\n")
    published.commit()
    published.publish()


@pytest.mark.docker
def test_what_is_not_committed_is_refused_by_name(published: Repository) -> None:
    before = published.release
    published.write("flows/draft.py", "")
    try:
        said = published.publish(fails=True)
    finally:
        (published.folder / "flows/draft.py").unlink()
    assert "?? flows/draft.py" in said
    assert "git stash" in said
    assert published.release == before


@pytest.mark.docker
def test_what_git_ignores_is_in_no_image(published: Repository) -> None:
    published.write("flows/.env", "KEY=secret\n")
    published.write("flows/ride.py", "def ride(): return 3\n")
    published.commit()
    published.publish()
    said = docker("run", "--rm", digests(published)["flow"], "ls", "-A", "/app/flows").stdout
    assert said.split() == ["ride.py"]


@pytest.mark.docker
def test_a_registry_that_does_not_answer_is_named_before_anything_is_built(
    rides: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rides.release
    host = f"127.0.0.1:{free_port()}"
    monkeypatch.setitem(rides.environment, "TRAINYARD_REGISTRY", f"{host}/rides")
    monkeypatch.setitem(rides.environment, "AWS_ENDPOINT_URL", f"http://{host}")
    said = rides.publish(fails=True)
    assert f"the registry {host} can't be used: Could not connect" in said
    assert "building" not in said
    assert rides.release == before


@pytest.mark.docker
def test_without_an_engine_it_says_so(
    published: Repository, registry: EmulatedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = published.environment["TRAINYARD_REGISTRY"]
    monkeypatch.setitem(published.environment, "TRAINYARD_REGISTRY", registry.make("empty"))
    monkeypatch.setitem(published.environment, "DOCKER_HOST", "unix:///without-docker")
    assert "Docker's engine doesn't answer" in published.publish(fails=True)
    # Where nothing is to be built, there needn't be one.
    monkeypatch.setitem(published.environment, "TRAINYARD_REGISTRY", before)
    published.publish()


@pytest.mark.docker
def test_without_a_commit_it_says_what_to_do(tmp_path: Path, registry: EmulatedRegistry) -> None:
    repository = Repository(tmp_path / "new", registry, "new")
    repository.git("update-ref", "-d", "HEAD")
    assert "`git commit`" in repository.publish(fails=True)
    assert repository.release is None


@pytest.mark.docker
def test_without_the_account_stack_it_says_what_makes_it(
    rides: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(rides.environment, "TRAINYARD_REGISTRY")
    pulumi, version = tmp_path / "pulumi", "[ $1 = version ] && exec echo v3.259.0"
    said = "echo \"error: no stack named 'account' found\" >&2; exit 255"
    pulumi.write_text(f"#!/bin/sh\n{version}\n{said}\n")
    pulumi.chmod(0o755)
    monkeypatch.setitem(rides.environment, "PATH", f"{tmp_path}:{rides.environment['PATH']}")
    said = rides.publish(fails=True)
    assert "no stack named 'account'" in said
    assert "make bootstrap" in said


# --- what is built, and how -----------------------------------------------------------------------
@pytest.mark.parametrize(("driver", "attests"), [("docker-container", True), ("docker", False)])
def test_an_image_is_attested_where_the_builder_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: str, attests: bool
) -> None:
    calls: list[tuple[str, ...]] = []

    def fake(*arguments: str, **_: Any) -> Any:
        calls.append(arguments)
        return type("Done", (), {"returncode": 0, "stdout": f"Name: x\nDriver:   {driver}\n"})

    class Full(Registry):
        def digest(self, repository: str, tag: str) -> str | None:
            return "sha256:1" if any("-t" in call for call in calls) else None

    monkeypatch.setattr(publish, "docker", fake)
    repositories = {name: f"r.example/{name}" for name in (*IMAGES, "buildcache")}
    login: Mapping[str, str] = {"DOCKER_CONFIG": "folder"}
    publisher = publish.Publisher(
        images.current_commit(), tmp_path, "x86_64", repositories, Full("r.example", None), login
    )
    assert publisher._build("mlflow", "1") == "sha256:1"
    attested = [call for call in calls if "--sbom=true" in call and "--provenance=mode=max" in call]
    assert bool(attested) == attests
    assert any(call[0] == "push" for call in calls) != attests
    if attests:
        assert any("ref=r.example/buildcache:mlflow" in part for part in attested[0])


def test_a_push_that_another_publish_won_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there: list[str] = []

    def fake(*arguments: str, **_: Any) -> Any:
        if arguments[0] == "push":
            there.append("sha256:2")
            raise DockerError("the tag is immutable")
        return type("Done", (), {"returncode": 1, "stdout": ""})

    class Contended(Registry):
        def digest(self, repository: str, tag: str) -> str | None:
            return there[0] if there else None

    monkeypatch.setattr(publish, "docker", fake)
    repositories = {name: f"r.example/{name}" for name in (*IMAGES, "buildcache")}
    publisher = publish.Publisher(
        images.current_commit(), tmp_path, "x86_64", repositories, Contended("r.example", None), {}
    )
    assert publisher._build("mlflow", "1") == "sha256:2"
