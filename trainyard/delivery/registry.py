"""The account's image registry, ECR: what a tag names, another tag for it, a login for Docker."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.tools.errors import StackError

ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
# An index is what a builder makes that attests its images.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class Registry:
    """A registry, by ECR's API."""

    host: str
    ecr: Any
    account: dict[str, str] = field(default_factory=dict)
    """Whose registry it is, as ECR's calls take it; without it, that of the credentials."""

    def digest(self, repository: str, tag: str) -> str | None:
        found = self._image(repository, imageTag=tag)
        return str(found["imageId"]["imageDigest"]) if found else None

    def add_tag(self, repository: str, digest: str, tag: str) -> None:
        """Give an image another tag; nothing happens where another publish was faster."""
        image = self._image(repository, imageDigest=digest)
        if not image:
            raise StackError(f"{repository}@{digest} has gone from the registry")
        known = self.ecr.exceptions
        there = known.ImageAlreadyExistsException, known.ImageTagAlreadyExistsException
        with explained(self.host), suppress(*there):
            self.ecr.put_image(
                repositoryName=repository.removeprefix(f"{self.host}/"),
                imageManifest=image["imageManifest"],
                imageManifestMediaType=image["imageManifestMediaType"],
                imageTag=tag,
                **self.account,
            )

    def _image(self, repository: str, **wanted: str) -> dict[str, Any] | None:
        with explained(self.host):
            found = self.ecr.batch_get_image(
                repositoryName=repository.removeprefix(f"{self.host}/"),
                imageIds=[wanted],
                acceptedMediaTypes=list(MANIFESTS),
                **self.account,
            )
        return next(iter(found["images"]), None)

    @contextmanager
    def signed_in(self) -> Iterator[dict[str, str]]:
        """Variables with which the Docker client may use the registry."""
        if not self.account:  # the emulator's: it is open
            yield {}
            return
        with explained(self.host):
            given = self.ecr.get_authorization_token()["authorizationData"][0]
        with docker_login(self.host, given["authorizationToken"]) as login:
            yield login


@contextmanager
def docker_login(host: str, auth: str) -> Iterator[dict[str, str]]:
    """Variables with which the Docker client has a login, user:password in base64.

    It is in a folder of its own, which goes at the end: the user's configuration stays as it is.
    """
    users = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    with tempfile.TemporaryDirectory(prefix="trainyard-docker-") as name:
        folder = Path(name)
        # Plug-ins, contexts and builders are found beside the file.
        for entry in users.iterdir() if users.is_dir() else ():
            if entry.name != "config.json":
                (folder / entry.name).symlink_to(entry.resolve())
        file = users / "config.json"
        config = json.loads(file.read_text()) if file.exists() else {}
        config["auths"] = {**config.get("auths", {}), host: {"auth": auth}}
        # No helper for this host: the file is asked, not a keychain.
        config["credHelpers"] = {**config.get("credHelpers", {}), host: ""}
        (folder / "config.json").write_text(json.dumps(config))
        yield {"DOCKER_CONFIG": name}


def open_registry(host: str) -> Registry:
    """ECR of the host's account and region; where the host isn't ECR's, of the shell's."""
    import boto3

    found = ECR.fullmatch(host)
    with explained(host):
        client = boto3.client("ecr", region_name=found[2] if found else None)
    return Registry(host, client, {"registryId": found[1]} if found else {})


@contextmanager
def explained(host: str) -> Iterator[None]:
    """Say of AWS's refusal which registry it is about, and what may help."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StackError(
            f"the registry {host} can't be used: {error}\nIt takes credentials of its account that "
            "may push images (`aws sso login`, or AWS_PROFILE), and a way to AWS from here"
        ) from error
