"""ECR by its API, on an emulator, and what is left of Docker's login."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from tests.trainyard.delivery import registries
from tests.trainyard.delivery.registries import KEY
from trainyard.delivery.registry import docker_login, open_registry
from trainyard.tools.docker import DockerError, docker
from trainyard.tools.errors import StackError

HOST = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
# What a builder makes that attests its images: a list of manifests.
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.locked(tmp_path_factory.mktemp("locked")) as host:
        yield host


@pytest.fixture
def repository(s3: str) -> str:
    """One whose tags never move, with an index under the tag `1`."""
    name = f"rides/{uuid4().hex[:12]}"
    ecr = boto3.client("ecr")
    ecr.create_repository(repositoryName=name, imageTagMutability="IMMUTABLE")
    put(name, "1")
    return f"{HOST}/{name}"


def put(name: str, tag: str) -> str:
    manifest = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "of": tag})
    image = boto3.client("ecr").put_image(
        repositoryName=name, imageManifest=manifest, imageManifestMediaType=INDEX, imageTag=tag
    )
    return str(image["image"]["imageId"]["imageDigest"])


@pytest.mark.server
def test_a_tag_is_found_and_gets_another_beside_it(repository: str) -> None:
    registry = open_registry(HOST)
    assert registry.digest(repository, "2") is None
    digest = registry.digest(repository, "1")
    assert digest
    registry.add_tag(repository, digest, "tried-1")
    assert registry.digest(repository, "tried-1") == digest
    registry.add_tag(repository, digest, "tried-1")  # as where two publish at once
    name = repository.removeprefix(f"{HOST}/")
    (kept,) = boto3.client("ecr").batch_get_image(
        repositoryName=name, imageIds=[{"imageTag": "tried-1"}]
    )["images"]
    assert kept["imageManifestMediaType"] == INDEX


@pytest.mark.server
def test_a_tag_never_moves(repository: str) -> None:
    registry = open_registry(HOST)
    first = registry.digest(repository, "1")
    second = put(repository.removeprefix(f"{HOST}/"), "2")
    registry.add_tag(repository, second, "1")
    assert registry.digest(repository, "1") == first != second


@pytest.mark.server
def test_an_image_or_a_repository_that_is_not_there_is_named(repository: str) -> None:
    registry = open_registry(HOST)
    with pytest.raises(StackError, match=f"sha256:{'0' * 64} has gone"):
        registry.add_tag(repository, f"sha256:{'0' * 64}", "2")
    with pytest.raises(StackError, match="'never/made' does not exist"):
        registry.digest(f"{HOST}/never/made", "1")


@pytest.mark.server
def test_docker_gets_ecrs_own_login(s3: str) -> None:
    with open_registry(HOST).signed_in() as login:
        config = json.loads((Path(login["DOCKER_CONFIG"]) / "config.json").read_text())
    assert config["auths"][HOST]["auth"]


@pytest.mark.server
def test_without_credentials_it_says_whose_are_needed(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StackError, match="AWS_PROFILE"):
        open_registry(HOST).digest(f"{HOST}/rides", "1")


@pytest.mark.docker
def test_a_login_opens_a_registry_and_leaves_nothing_behind(
    locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"auths": {"example.com": {"auth": "bWU6bXk="}}, "credsStore": "empty"}
    keychain = tmp_path / "docker-credential-empty"
    keychain.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
    keychain.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text(json.dumps(mine))
    (tmp_path / "cli-plugins").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\nCOPY config.json /\n")
    name = f"{locked}/rides/flow:1"
    docker("build", "-q", "-t", name, str(tmp_path), environment={"DOCKER_CONFIG": "/nowhere"})
    with pytest.raises(DockerError):
        docker("push", "-q", name)
    with docker_login(locked, KEY) as login:
        folder = Path(login["DOCKER_CONFIG"])
        docker("push", "-q", name, environment=login)
        kept = json.loads((folder / "config.json").read_text())
        assert kept["auths"]["example.com"] == mine["auths"]["example.com"]  # type: ignore[index]
        assert (folder / "cli-plugins").is_dir()
    assert not folder.exists()
    assert (tmp_path / "cli-plugins").is_dir()
    assert json.loads((tmp_path / "config.json").read_text()) == mine
    docker("rmi", name)
