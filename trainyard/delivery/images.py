"""`make image`: build the three images, say what they weigh, and try the flow image.

Of this machine: TRAINYARD_BASE_IMAGE (another base than the pinned one), TRAINYARD_BUILD_NETWORK
(`host`: a VPN, a proxy on loopback), UV_DEFAULT_INDEX or PIP_INDEX_URL (a private index).
"""

import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from trainyard.contract.containers import SCRATCH, USER
from trainyard.contract.naming import IMAGES
from trainyard.paths import REPO
from trainyard.tools.console import say
from trainyard.tools.docker import docker
from trainyard.tools.errors import StackError
from trainyard.tools.git import GitError, git

TARGETS = ("base", *IMAGES)  # the base is what they are compared with
# What a deployment depends on: the images, the program that makes the stack, and what Prefect is
# told of it.
SOURCES = (
    *(".dockerignore", "docker", "flows", "infra", "prefect.yaml", "requirements"),
    *("trainyard/__init__.py", "trainyard/contract", "trainyard/prefect"),
)
# What makes all images; beside it each has what the Dockerfile copies into it.
RECIPE = (".dockerignore", "docker/Dockerfile", "docker/slim", "requirements/uv.txt")
# As the stack's setting `cpuArchitecture` has them.
PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
MAX_ADDED_MB = 750
DVC_MB = 200
"""More, where docker/Dockerfile puts DVC into the flow image."""
# Of this flow's load, which is Prefect and MLflow: the time itself says how fast this machine is.
SMOKE = "flows/smoke/smoke.py:smoke"
MAX_LOAD_RATIO = 1.5
LOCKED_DOWN = (
    *("--read-only", "--user", USER, "--tmpfs", SCRATCH, "--network", "none"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)


@dataclass(frozen=True)
class Commit:
    """What the images are built from, as their labels say it."""

    source: str
    revision: str
    time: int

    @property
    def tag(self) -> str:
        commit, *dirty = self.revision.split("-")
        return "-".join([commit[:12], *dirty])

    @property
    def labels(self) -> dict[str, str]:
        """The Dockerfile's arguments. CREATED is the commit's time: built again, it is the same."""
        created = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"SOURCE": self.source, "REVISION": self.revision, "CREATED": created}


def current_commit() -> Commit:
    """The clone's commit; its revision ends in -dirty when what goes into the images differs."""
    try:
        revision, seconds = git("show", "-s", "--format=%H %ct").split()
    except GitError as error:
        raise StackError(
            f"{error}\nImages carry the commit that they are built from. Where there is none: "
            "run `git init`, `git add -A` and `git commit`, or clone the repository"
        ) from error
    if uncommitted():
        revision += "-dirty"
    # Asked this way, having no remote isn't an error; nothing is sent.
    remote = git("ls-remote", "--get-url", "origin")
    return Commit(source_url(remote), revision, int(seconds))


def uncommitted() -> str:
    """Files of SOURCES that differ from the commit, as `git status` lists them."""
    return git("status", "--porcelain", "--", *SOURCES)


def content_tag(image: str, cpu: str) -> str:
    """A name for what an image is made of: the same in two commits, it needn't be built again."""
    base = os.environ.get("TRAINYARD_BASE_IMAGE", "")
    patterns = (f":(glob){pattern}" for pattern in (*RECIPE, *content(image)))
    return hash_of(PLATFORMS[cpu], base, git("ls-files", "--stage", "--", *patterns))[:16]


def content(image: str) -> list[str]:
    """What the Dockerfile copies into an image, from the repository: paths, as git's patterns.

    Its packages come from stages of their own, its code from its folder in the stage `code`; what
    is copied in another way is refused, because the tag wouldn't know of it.
    """
    copied: dict[str, list[tuple[str, str]]] = {}
    packages: dict[str, str] = {}
    stage = ""
    dockerfile = (REPO / "docker/Dockerfile").read_text().replace("\\\n", " ")
    for line in dockerfile.splitlines():
        if made := re.match(r"FROM \S+ AS (\S+)", line):
            stage = made[1]
        elif taken := re.match(r"COPY --from=(\S+-packages) /venv ", line):
            packages[stage] = taken[1]
        elif copy := re.match(r"COPY ((?:[\w./*-]+\s+)+)(/\S*)$", line):
            copied.setdefault(stage, []).append((copy[1], copy[2]))
        elif re.match(r"(ADD|COPY(?! --from=))\s", line):
            raise StackError(f"docker/Dockerfile: `{line}`: write it as `COPY SOURCE ... /TARGET/`")
    apart = copied.keys() - {"build", "code", *packages.values()}
    targets = [to for _, to in copied["code"] if not to.startswith(tuple(f"/{i}/" for i in IMAGES))]
    if apart or targets:
        where = ", ".join([*(f"the stage {each}" for each in sorted(apart)), *targets])
        raise StackError(
            f"docker/Dockerfile copies from the repository into {where}: code belongs into the "
            "stage `code`, under /flow/, /worker/ or /mlflow/, by which an image's tag knows it"
        )
    locks = [sources for sources, _ in copied[packages[image]]]
    code = [sources for sources, to in copied["code"] if to.startswith(f"/{image}/")]
    return " ".join([*locks, *code]).split()


def source_tree() -> str:
    """A hash of the commit's SOURCES: of all that a deployment depends on."""
    return hash_of(git("ls-tree", "HEAD", "--", *SOURCES))


def prefect_version(lock: str) -> str:
    """Prefect's version in requirements/flow.txt; empty where it has none."""
    pinned = re.search(r"^prefect==(\w[\w.]*)", lock, re.MULTILINE)
    return pinned[1] if pinned else ""


def hash_of(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def source_url(remote: str) -> str:
    """A remote's web address, without credentials; nothing for a remote that has none."""
    found = re.fullmatch(
        r"(?:(?:https|ssh)://(?:[^@/]+@)?|[^@/:]+@)([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?", remote
    )
    return f"https://{found[1]}/{found[2]}" if found else ""


@dataclass(frozen=True)
class Built:
    """One image, and how long it took."""

    id: str
    size: int
    seconds: float


def build(cpu: str = "x86_64") -> dict[str, str]:
    return {name: image.id for name, image in build_all(cpu).items() if name in IMAGES}


def build_all(cpu: str) -> dict[str, Built]:
    commit = current_commit()
    return {target: build_one(target, commit, cpu) for target in TARGETS}


def build_one(target: str, commit: Commit, cpu: str) -> Built:
    """Build one of TARGETS, under its local name."""
    tag = ("-t", local_name(target, commit, cpu)) if target in IMAGES else ()
    started = time.monotonic()
    image = docker("build", "-q", *tag, *build_options(target, commit, cpu, REPO)).stdout.strip()
    return Built(image, size(image), time.monotonic() - started)


def local_name(image: str, commit: Commit, cpu: str) -> str:
    """What an image is called on this machine, where those of two architectures may be."""
    return f"trainyard-{image}:{commit.tag}{'' if cpu == 'x86_64' else f'-{cpu}'}"


def base_image() -> str:
    """What all images start from: this machine's choice, or what the Dockerfile pins."""
    dockerfile = (REPO / "docker/Dockerfile").read_text()
    (pinned,) = re.findall(r"^FROM (\S+) AS pinned$", dockerfile, re.MULTILINE)
    return os.environ.get("TRAINYARD_BASE_IMAGE") or str(pinned)


def build_options(target: str, commit: Commit, cpu: str, folder: Path) -> list[str]:
    """How a target is built from a folder, whatever builds it."""
    # The first is BuildKit's word for it: the same commit gives the same dates in the image.
    arguments = {"SOURCE_DATE_EPOCH": str(commit.time)}
    arguments |= {"BASE": os.environ.get("TRAINYARD_BASE_IMAGE", "")}
    arguments |= commit.labels if target != "base" else {}
    return [
        *("--target", target, "--platform", PLATFORMS[cpu]),
        *("-f", str(folder / "docker/Dockerfile")),
        *(f"--build-arg={name}={value}" for name, value in arguments.items() if value),
        *machine_options(),
        str(folder),
    ]


def machine_options() -> list[str]:
    """What this machine's builds need beside the Dockerfile."""
    network = os.environ.get("TRAINYARD_BUILD_NETWORK")
    return [*([f"--network={network}"] if network else []), *index_options()]


def index_options() -> list[str]:
    """The package index of this machine, for a build."""
    given = [name for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL") if os.environ.get(name)]
    # A secret, not an argument: an index's address often has a password in it.
    return [f"--secret=id=index,env={name}" for name in given[:1]]


def size(image: str) -> int:
    """The sum of its layers; `docker image inspect` counts otherwise with containerd's store."""
    layers = docker("history", "--human=false", "--format", "{{.Size}}", image).stdout
    return sum(int(float(size)) for size in layers.split())


def entrypoints() -> list[str]:
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text())["deployments"]
    return sorted({str(deployment["entrypoint"]) for deployment in deployments})


@dataclass(frozen=True)
class Trial:
    """What the flow image says of itself."""

    loads: dict[str, tuple[float, float]]
    """Entrypoint -> seconds of a processor, and of the clock, until the flow could start."""
    packages: list[tuple[str, int]]
    """Bytes, the largest first."""


def smoke_test(image: str, attempts: int = 5) -> Trial:
    """Load every entrypoint of prefect.yaml in the flow image, as locked down as on Fargate.

    The best of some attempts is timed: the first one reads from the disk.
    """
    said = docker(
        # The shares: it is timed, so what else runs here waits.
        *("run", "--rm", "-i", "--cpu-shares", "262144", *LOCKED_DOWN),
        *(image, "python", "-", str(attempts), *entrypoints()),
        stdin=(REPO / "docker/smoke.py").read_text(),
    ).stdout
    return Trial(**json.loads(said))


def broken_promises(added: int, trial: Trial, timed: bool) -> list[str]:
    """What the flow image was to keep and doesn't, in words; its times only where they count."""
    broken = []
    with_dvc = "\nARG DVC=1\n" in (REPO / "docker/Dockerfile").read_text()
    limit = MAX_ADDED_MB + DVC_MB * with_dvc
    if added > limit * 1e6:
        largest = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in trial.packages[:3])
        broken.append(
            f"the flow image adds {added / 1e6:.0f} MB to its base, more than {limit}: "
            f"see its largest packages ({largest}, ...) and requirements/flow.txt"
        )
    # The processor's time: others on this machine don't make an image slower.
    smoke, _ = trial.loads.get(SMOKE, (float("inf"), 0.0))
    for entrypoint, (processor, _) in trial.loads.items():
        if timed and processor > smoke * MAX_LOAD_RATIO:
            broken.append(
                f"{entrypoint} takes {processor / smoke:.1f} times as long to load as the smoke "
                f"flow, more than {MAX_LOAD_RATIO}: `python -X importtime -c 'import ...'` says "
                "which import to move to its use"
            )
    return broken


def report(images: dict[str, Built], trial: Trial, commit: Commit, cpu: str) -> str:
    base = images["base"].size
    rows = [f"{'image':38}{'MB':>8}{'added':>8}{'seconds':>10}"]
    for name in IMAGES:
        size, added = images[name].size / 1e6, (images[name].size - base) / 1e6
        local, seconds = local_name(name, commit, cpu), images[name].seconds
        rows.append(f"{local:38}{size:8.0f}{added:8.0f}{seconds:10.1f}")
    rows += ["", f"{'largest in the flow image':38}{'MB':>8}"]
    rows += [f"{name:38}{size / 1e6:8.1f}" for name, size in trial.packages[:10]]
    rows += ["", f"{'until a flow can start':38}{'CPU s':>8}{'clock':>8}"]
    rows += [f"{name:38}{cpu:8.1f}{clock:8.1f}" for name, (cpu, clock) in trial.loads.items()]
    return "\n".join(rows)


def build_and_report(cpu: str) -> int:
    """Build, measure and smoke-test the images; the exit code is 1 where a promise is broken."""
    commit, images = current_commit(), {}
    for target in TARGETS:
        say(f"building {target}")
        images[target] = build_one(target, commit, cpu)
    say("trying the flow image")
    trial = smoke_test(images["flow"].id)
    say(report(images, trial, commit, cpu))
    broken = broken_promises(images["flow"].size - images["base"].size, trial, timed=True)
    for each in broken:
        print(each, file=sys.stderr)
    return 1 if broken else 0


def print_tags(cpu: str) -> None:
    """Print each image's content tag, which `make publish` gives it, without building it."""
    for image in IMAGES:
        say(f"{image:<8}{content_tag(image, cpu)}")
