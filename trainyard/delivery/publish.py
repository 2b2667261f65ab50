"""`make publish`: the images in the account's registry; their digests in .trainyard/release.json.

An image is built once for what it is made of: its tag is a hash of that. The flow image is tried as
the registry gives it. A publish that was killed is finished by the next one.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import BUILD_CACHE, IMAGES
from trainyard.contract.release import Images, Release
from trainyard.delivery import images
from trainyard.delivery.images import PLATFORMS, SOURCES, Commit
from trainyard.delivery.registry import Registry, open_registry
from trainyard.paths import RELEASE_FILE, REPO
from trainyard.tools.console import say
from trainyard.tools.docker import DockerError, docker
from trainyard.tools.errors import StackError
from trainyard.tools.git import files_of


def repositories() -> dict[str, str]:
    """The address of each image's repository, and of the build cache's."""
    if registry := os.environ.get("TRAINYARD_REGISTRY", "").rstrip("/"):
        return {name: f"{registry}/{name}" for name in (*IMAGES, BUILD_CACHE)}
    try:
        found: dict[str, str] = Pulumi("account").outputs()["repositories"]
    except (StackError, KeyError) as error:
        raise StackError(
            f"{error}\nThe registry is an output of the stack `account`, which `make bootstrap` "
            "makes. TRAINYARD_REGISTRY=host:port/prefix names an emulated one"
        ) from error
    return found


@dataclass(frozen=True)
class Publisher:
    """One commit, and the registry that its images go to."""

    commit: Commit
    folder: Path
    """A checkout of the commit."""
    cpu: str
    repositories: Mapping[str, str]
    registry: Registry
    login: Mapping[str, str]
    """Variables with which the Docker client may use the registry."""

    def publish(self) -> Release:
        tags = {image: images.content_tag(image, self.cpu) for image in IMAGES}
        # All are asked for first: what can't be pushed needn't be built.
        found = {image: self._digest(image, tag) for image, tag in tags.items()}
        digests = {}
        for image, tag in tags.items():
            name = f"{self.repositories[image]}:{tag}"
            say(f"{image}: {'in the registry' if found[image] else 'building and pushing'}: {name}")
            digests[image] = found[image] or self._build(image, tag)
        # A tag of its own says that the image was tried: what isn't there is tried once more.
        tried = f"tried-{tags['flow']}"
        if self._digest("flow", tried) != digests["flow"]:
            self._try_flow(digests["flow"])
            self.registry.add_tag(self.repositories["flow"], digests["flow"], tried)
        return Release(
            commit=self.commit.revision,
            tree=images.source_tree(),
            images=Images(**{i: f"{self.repositories[i]}@{digests[i]}" for i in IMAGES}),
            prefect=images.prefect_version((self.folder / "requirements/flow.txt").read_text()),
        )

    def _digest(self, image: str, tag: str) -> str | None:
        return self.registry.digest(self.repositories[image], tag)

    def _build(self, image: str, tag: str) -> str:
        started = time.monotonic()
        name = f"{self.repositories[image]}:{tag}"
        options = images.build_options(image, self.commit, self.cpu, self.folder)
        failure = None
        try:
            if self._builder_attests():
                self._build_attested(image, name, options)
            else:
                docker("build", "-q", "-t", name, *options)
                docker("push", "-q", name, environment=self.login)
        except DockerError as error:
            failure = error
        # Where two publish the same at once, the second push fails: ECR never moves a tag.
        digest = self._digest(image, tag)
        if not digest:
            raise failure or StackError(f"{name} was pushed, and the registry doesn't have it")
        say(f"{image}: {digest} in {time.monotonic() - started:.0f} s")
        return digest

    def _builder_attests(self) -> bool:
        """Whether buildx has a builder that isn't the engine's, which can't attest nor cache."""
        found = docker("buildx", "inspect", check=False, environment=self.login)
        driver = re.search(r"^Driver:\s*(\S+)", found.stdout, re.MULTILINE)
        return found.returncode == 0 and driver is not None and driver[1] != "docker"

    def _build_attested(self, image: str, name: str, options: list[str]) -> None:
        """Build and push with SBOM, provenance, and a cache in the registry for the next runner."""
        cache = f"type=registry,ref={self.repositories[BUILD_CACHE]}:{image}"
        # image-manifest: as ECR wants a cache. ignore-error: a build without a cache is a build.
        keep = "mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"
        docker(
            *("buildx", "build", "--push", "-t", name, "--sbom=true", "--provenance=mode=max"),
            *(f"--cache-from={cache}", f"--cache-to={cache},{keep}"),
            *options,
            environment=self.login,
        )

    def _try_flow(self, digest: str) -> None:
        """Pull the flow image and load in it every flow that prefect.yaml names."""
        say("flow: trying it, as the registry gives it")
        reference = f"{self.repositories['flow']}@{digest}"
        docker("pull", "-q", "--platform", PLATFORMS[self.cpu], reference, environment=self.login)
        base = docker(
            *("build", "-q"), *images.build_options("base", self.commit, self.cpu, self.folder)
        )
        try:
            trial = images.smoke_test(reference, attempts=1)
        except DockerError as error:
            why = "A flow of prefect.yaml doesn't load in the image"
            raise StackError(f"{error}\n{why}") from error
        added = images.size(reference) - images.size(base.stdout.strip())
        # Not timed: what else this machine does must not stop a release.
        if broken := images.broken_promises(added, trial, timed=False):
            raise StackError("\n".join(broken))
        say(f"flow: {', '.join(trial.loads)} load; {added / 1e6:.0f} MB more than its base")


def publish(repositories: Mapping[str, str], cpu: str) -> Release:
    commit = images.current_commit()
    if changed := images.uncommitted():
        raise StackError(
            f"images are made from a commit, and these files differ from it:\n{changed}\n"
            "Commit them, or put them aside: git stash -u"
        )
    registry = open_registry(repositories["flow"].split("/")[0])
    with registry.signed_in() as login, files_of("HEAD", *SOURCES) as folder:
        return Publisher(commit, folder, cpu, repositories, registry, login).publish()


def publish_release(cpu: str) -> None:
    # A job that is cancelled takes its login with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; a next publish goes on from here"))
    started = time.monotonic()
    try:
        release = publish(repositories(), cpu)
    except StackError as error:
        raise StackError(f"{error}\nNothing was released.") from error
    release.write(RELEASE_FILE)
    seconds = time.monotonic() - started
    say(f"{RELEASE_FILE.relative_to(REPO)}: {release.commit[:12]} in {seconds:.0f} s")
