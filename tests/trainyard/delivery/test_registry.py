"""Registries: how they open, and what is left of a login."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainyard.delivery.registries import KEY, LocalRegistry, serve
from trainyard.delivery.registry import Registry, RegistryError, open_registry
from trainyard.tools.docker import docker


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with serve(tmp_path_factory.mktemp("locked"), locked=True) as running:
        yield running


@pytest.mark.docker
def test_a_login_opens_a_registry_and_leaves_nothing_behind(
    locked: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    name = f"{locked.host}/rides/flow:1"
    docker("build", "-q", "-t", name, str(tmp_path), environment={"DOCKER_CONFIG": "/nowhere"})
    registry = Registry(locked.host, KEY)
    assert registry.digest(f"{locked.host}/rides/flow", "1") is None
    with registry.signed_in() as login:
        folder = Path(login["DOCKER_CONFIG"])
        docker("push", "-q", name, environment=login)
        kept = json.loads((folder / "config.json").read_text())
        assert kept["auths"]["example.com"] == mine["auths"]["example.com"]  # type: ignore[index]
        assert (folder / "cli-plugins").is_dir()
    assert not folder.exists()
    assert (tmp_path / "cli-plugins").is_dir()
    assert json.loads((tmp_path / "config.json").read_text()) == mine

    digest = registry.digest(f"{locked.host}/rides/flow", "1")
    assert digest
    registry.add_tag(f"{locked.host}/rides/flow", digest, "2")
    assert registry.digest(f"{locked.host}/rides/flow", "2") == digest


@pytest.mark.docker
def test_a_registry_that_is_closed_is_told_apart_from_one_without_the_image(
    locked: LocalRegistry,
) -> None:
    with pytest.raises(RegistryError, match="can log in to ECR only"):
        Registry(locked.host).digest(f"{locked.host}/rides/flow", "1")
    with pytest.raises(RegistryError, match="credentials of this shell"):
        Registry(locked.host, "QVdTOndyb25n").digest(f"{locked.host}/rides/flow", "1")


@pytest.mark.server
def test_the_key_to_ecr_comes_from_aws(s3: str) -> None:
    host = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
    registry = open_registry(host)
    assert registry.host == host
    assert registry.auth
    assert registry.auth not in repr(registry)


@pytest.mark.server
def test_without_credentials_it_says_whose_are_needed(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RegistryError, match="AWS_PROFILE"):
        open_registry("000000000000.dkr.ecr.us-east-1.amazonaws.com")
