"""The repository's commits."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from trainyard.paths import REPO
from trainyard.tools.errors import StackError


class GitError(StackError):
    """git refuses; the message says what it was told, and why it can't."""


def git(*arguments: str) -> str:
    """`git ARGUMENTS` in the repository, and what it wrote."""
    return _run(arguments).decode().strip()


@contextmanager
def files_of(commit: str, *paths: str) -> Iterator[Path]:
    """A folder with a commit's files: without what git ignores or what is edited meanwhile."""
    # The file modes of a clone, so that a build finds in its cache what `make image` has built.
    packed = _run(["-c", "tar.umask=0022", "archive", commit, *paths])
    with TemporaryDirectory(prefix="trainyard-commit-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            try:
                files.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise GitError(f"the commit {commit} can't be unpacked: {error}") from error
        yield Path(folder)


def _run(arguments: list[str] | tuple[str, ...]) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPO, capture_output=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise GitError("there is no `git` on PATH: https://git-scm.com") from None
    if done.returncode:
        raise GitError(f"`git {' '.join(arguments)}` failed: {done.stderr.decode().strip()}")
    return done.stdout
