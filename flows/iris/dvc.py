"""DVC, run as a program: it lives in an environment of its own, which a run may not have."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from flows.iris.files import FileVersion, remote
from flows.iris.params import PROJECT
from flows.platform.run_info import ROOT

DVC = ROOT / ".venv-dvc/bin/dvc"


class DvcError(RuntimeError):
    """DVC failed: the message says in what, where and what to do. Another try may pass."""


class DvcUnusableError(ValueError):
    """DVC can't work here, however often it is tried: the message says what to do."""


# What DVC says -> what to do. Its exit code is 255 for nearly all of it.
LOCKED = r"is busy, it is being blocked by|[Uu]nable to acquire lock"
ADVICE = {
    LOCKED: "another DVC command works in this folder: run again when it has ended",
    "failed to reproduce": "correct that, and run again",
    r"bucket does not exist|\[Errno": "create it, or correct TRAINYARD_ARTIFACT_STORE",
    "connect to the endpoint|[Cc]redentials|[Aa]ccess ?[Dd]enied|Forbidden": "check the "
    "credentials, the region, the network and AWS_ENDPOINT_URL",
    "Checkout failed|missing-files|[Ff]ailed to pull": "the remote lacks files: push them from "
    "where they are, or run `repro`, which makes them anew",
    r"\.yaml|\.lock": "correct the file",
}
PASSING = re.compile(f"{LOCKED}|endpoint|failed to reproduce")


@contextmanager
def project() -> Iterator[Path]:
    """DVC's folder: the clone's own, or a copy for this run where that can't be written."""
    if os.access(PROJECT, os.W_OK):
        yield PROJECT
        return
    with tempfile.TemporaryDirectory() as folder:  # in a container
        yield Path(shutil.copytree(PROJECT, Path(folder, PROJECT.name)))


def run(folder: Path, store: str, *arguments: str, log: Callable[[str], object] = print) -> None:
    """Run a command of DVC in a folder, with the artifact store as its remote.

    Args:
        log: gets each line as soon as DVC prints it.

    Raises:
        DvcError, DvcUnusableError: it failed.
    """
    if not DVC.exists():
        raise DvcUnusableError(
            f"DVC isn't installed in {DVC.parents[1]}: `make .venv-dvc/.dvc` does it; an image has "
            "it if docker/Dockerfile says ARG DVC=1"
        )
    command = " ".join(["dvc", *arguments])
    log(f"Running: {command}")
    log(f"CWD: {folder}")
    said = []
    with tempfile.TemporaryDirectory() as config:
        _configure(Path(config), folder, store)
        with _process(folder, Path(config), *arguments) as process:
            for line in process.stdout or ():
                said.append(line.rstrip())
                if said[-1]:
                    log(said[-1])
    if process.returncode:
        text = "\n".join(said)
        known = (advice for pattern, advice in ADVICE.items() if re.search(pattern, text))
        kind = DvcError if PASSING.search(text) else DvcUnusableError
        raise kind(
            f"`{command}` in {folder} (remote: {remote(store)}) ended with {process.returncode}: "
            f"{_fault(said)}; {next(known, 'see the lines above')}"
        )


def versions(folder: Path) -> list[FileVersion]:
    """The versions of all files that dvc.lock has."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].values()
    found = {
        each["path"]: each["md5"]
        for stage in stages
        for each in stage.get("deps", []) + stage.get("outs", [])
    }
    return [FileVersion(path=path, md5=md5) for path, md5 in found.items()]


def _fault(said: list[str]) -> str:
    """Four lines of what DVC said of its failure, and the stage that it ran last before that."""
    told: list[str] = []
    for line in said:
        told = [] if re.match("> |Stage |Running stage ", line) else [*told, line.strip()]
    told = [line for line in told if line and "Having any troubles" not in line]
    errors = [at for at, line in enumerate(told) if line.startswith("ERROR: ")] or [0]
    stage_failed = "failed to reproduce" in told[errors[0]] if told else False
    first = max(0, errors[0] - 2 * stage_failed)
    return "; ".join(line.removeprefix("ERROR: ") for line in told[first : first + 4])


def _configure(config: Path, folder: Path, store: str) -> None:
    """Write what holds on this machine; the project's own .dvc/config prevails over it."""
    (folder / ".dvc").mkdir(exist_ok=True)  # which an image doesn't have
    place = remote(store)
    url = str(place) if place.protocol == "s3" else str(Path(place.path).resolve())
    no_git = not any((each / ".git").exists() for each in folder.resolve().parents)
    config.joinpath("config").write_text(
        f"[core]\n    remote = store\n    no_scm = {no_git}\n"
        f"    site_cache_dir = {folder / '.dvc/tmp'}\n['remote \"store\"']\n    url = {url}\n"
    )


@contextmanager
def _process(folder: Path, config: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """DVC and the stages that it starts, ended together."""
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SYSTEM_CONFIG_DIR": str(config),
        # the stages run in this environment, and not in DVC's
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(  # noqa: S603
        [DVC, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:  # also Prefect's and Python's way to stop a run
            os.killpg(process.pid, signal.SIGTERM)
            raise
