"""`make doctor` without STACK=: the laptop itself, beside its tools."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from trainyard.laptop import processes
from trainyard.laptop.services import LABELS, USUAL_PORTS
from trainyard.paths import REPO
from trainyard.prefect.health import Check, guarded

HOME = REPO / ".trainyard"
NEEDED = 200e6
"""Bytes of disk that a stack and a run can't do without."""
FULL = re.compile("No space left|disk is full|quota exceeded|No usable temporary directory", re.I)
_ROOM = "make room there (`df -h` and `df -i` show what is full), and try again"


def laptop() -> Iterator[Check]:
    """The disk, the ports that the stack prefers, and the package index."""
    yield guarded("disk", disk, _ROOM)
    for name in USUAL_PORTS:
        yield port(name)
    todo = (
        "name it by UV_DEFAULT_INDEX or PIP_INDEX_URL, a proxy by HTTPS_PROXY; or mend the network"
    )
    yield guarded("package index", partial(index, todo), todo)


def disk() -> Check:
    """Free bytes and files, where the stack writes and where temporary files go."""
    folders = [REPO, HOME, Path(os.environ.get("TMPDIR", "/tmp"))]  # noqa: S108
    left = {folder: os.statvfs(folder) for folder in folders if folder.exists()}
    for folder, each in left.items():
        free = each.f_bavail * each.f_frsize
        if free < NEEDED:
            return Check("disk", f"{folder} has {free / 1e6:.0f} MB free", _ROOM)
        if each.f_files and each.f_favail < 1000:
            return Check("disk", f"{folder} has room for {each.f_favail} files", _ROOM)
    return Check("disk", f"{left[REPO].f_bavail * left[REPO].f_frsize / 1e9:.0f} GB free")


def disk_full(said: str = "") -> str:
    """What to do where a full disk made a command fail: by what was said, or by the disk itself."""
    found = guarded("disk", disk, _ROOM)
    if found.failed:
        return f"the disk is full: {found.found}; {_ROOM}"
    return f"a disk was full, and has room again: {_ROOM}" if FULL.search(said) else ""


def port(name: str) -> Check:
    """A port that a service prefers: it takes another one where it is taken."""
    number = USUAL_PORTS[name]
    if processes.is_free(number):
        return Check(f"port {number}", "free")
    if processes.listens(HOME, name, number):
        return Check(f"port {number}", f"{LABELS[name]} of `make up`")
    todo = "it isn't this stack's: `make up` takes another port, `make status` says which"
    return Check(f"port {number}", "taken", todo, optional=True)


def index(todo: str) -> Check:
    """Whether the package index answers that uv is set up for."""
    command = ["pip", "compile", "-q", "--no-cache", "--no-deps", "--no-header", "-"]
    done = subprocess.run(  # noqa: S603
        [REPO / ".uv/bin/uv", *command],
        input="uv",
        env={"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "10", **os.environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:  # what is built already works without it
        said = done.stderr.strip().splitlines() or ["no answer"]
        return Check("package index", said[-1].strip(), todo, optional=True)
    return Check("package index", "answers")
