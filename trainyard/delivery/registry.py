"""Image registries by their HTTP interface: what a tag names, and another tag for it.

ECR opens to AWS credentials; another registry has to be open as it is, like one on loopback.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from trainyard.tools.errors import StackError

ECR = re.compile(r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")
# An index is what a builder makes that attests its images.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
REGISTRY_SECONDS = 30


class RegistryError(StackError):
    """The registry can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Registry:
    """A registry, and the key to it."""

    host: str
    auth: str = field(default="", repr=False)
    """As HTTP and Docker have it: user:password in base64."""

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest of the image that a tag names, if there is one."""
        answer = self._ask("GET", repository, tag)
        return _digest(answer.content) if answer else None

    def add_tag(self, repository: str, digest: str, tag: str) -> None:
        """Give an image another tag."""
        found = self._ask("GET", repository, digest)
        if not found:
            raise RegistryError(f"{repository}@{digest} has gone from the registry")
        # Where another publish was faster, it is there: ECR refuses what it has.
        if self.digest(repository, tag) != digest:
            media_type = found.headers["Content-Type"]
            self._ask("PUT", repository, tag, content=found.content, media_type=media_type)

    def _ask(
        self,
        method: str,
        repository: str,
        reference: str,
        content: bytes = b"",
        media_type: str = "",
    ) -> httpx.Response | None:
        scheme = "http" if _loopback(self.host) else "https"
        name = repository.removeprefix(f"{self.host}/")
        url = f"{scheme}://{self.host}/v2/{name}/manifests/{reference}"
        headers = {"Content-Type": media_type} if content else {"Accept": ", ".join(MANIFESTS)}
        if self.auth:
            headers["Authorization"] = f"Basic {self.auth}"
        try:
            answer = httpx.request(
                method, url, headers=headers, content=content, timeout=REGISTRY_SECONDS
            )
        except httpx.HTTPError as error:
            raise RegistryError(
                f"the registry {self.host} doesn't answer ({error}): look at its address, and "
                "whether this machine reaches it"
            ) from error
        if answer.status_code == httpx.codes.NOT_FOUND and method == "GET":
            return None
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            why = (
                "the AWS credentials of this shell don't give that right"
                if self.auth
                else "it wants a login, and Trainyard can log in to ECR only"
            )
            raise RegistryError(f"the registry refuses {method} {repository}: {why}")
        if answer.is_error:
            raise RegistryError(f"{self.host} answers {answer.status_code}: {answer.text[:500]}")
        return answer

    @contextmanager
    def signed_in(self) -> Iterator[dict[str, str]]:
        """Variables with which the Docker client may use the registry.

        The login is in a folder of its own, which goes at the end: nothing is left in the user's
        configuration or keychain, whose other settings and logins count as ever.
        """
        if not self.auth:
            yield {}
            return
        users = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
        with tempfile.TemporaryDirectory(prefix="trainyard-docker-") as name:
            folder = Path(name)
            # Plug-ins, contexts and builders are found beside the file.
            for entry in users.iterdir() if users.is_dir() else ():
                if entry.name != "config.json":
                    (folder / entry.name).symlink_to(entry.resolve())
            file = users / "config.json"
            config = json.loads(file.read_text()) if file.exists() else {}
            config["auths"] = {**config.get("auths", {}), self.host: {"auth": self.auth}}
            # No helper for this host: the file is asked, not a keychain.
            config["credHelpers"] = {**config.get("credHelpers", {}), self.host: ""}
            (folder / "config.json").write_text(json.dumps(config))
            yield {"DOCKER_CONFIG": name}


def open_registry(host: str) -> Registry:
    """The registry of that host, with the key that AWS gives where it is ECR."""
    if not (ecr := ECR.fullmatch(host)):
        return Registry(host)
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        client = boto3.Session().client("ecr", region_name=ecr["region"])
        given = client.get_authorization_token()["authorizationData"][0]
    except (BotoCoreError, ClientError) as error:
        raise RegistryError(
            f"AWS gives no login for {host}: {error}\nThis shell needs credentials of the account "
            "that may use its registry: `aws sso login`, or AWS_PROFILE"
        ) from error
    return Registry(host, given["authorizationToken"])


def _loopback(host: str) -> bool:
    """What Docker too reaches without TLS."""
    return host.split(":")[0] == "localhost" or host.startswith("127.")


def _digest(manifest: bytes) -> str:
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
