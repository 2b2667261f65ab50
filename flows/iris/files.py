"""Files by their content, where DVC has its remote: `dvc pull` finds what Prefect's stages made."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel
from upath import UPath

from flows.platform.artifact_store import artifact_path, read, write


class FileVersion(BaseModel):
    """One of a stage's files."""

    path: str
    """In DVC's folder."""
    md5: str
    """Of its content: what DVC calls its version."""


def remote(store: str) -> UPath:
    """DVC's remote in an artifact store."""
    return artifact_path(store, "dvc")


def keep(store: str, folder: Path, path: str) -> FileVersion:
    """Copy a file into the remote; gives its version.

    Raises:
        ArtifactStoreError: the store can't be written.
    """
    content = (folder / path).read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    write(_place(store, md5), content)
    return FileVersion(path=path, md5=md5)


@contextmanager
def workspace(store: str, *inputs: FileVersion) -> Iterator[Path]:
    """A folder for a stage, with the files that it reads; it ends with the block.

    Raises:
        ArtifactStoreError: the store lacks one, or can't be read.
    """
    with TemporaryDirectory() as folder:
        for each in inputs:
            file = Path(folder, each.path)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(read(_place(store, each.md5)))
        yield Path(folder)


def tags(versions: Iterable[FileVersion]) -> dict[str, str]:
    """The versions as tags for MLflow."""
    return {f"dvc.{each.path}": each.md5 for each in versions}


def _place(store: str, md5: str) -> UPath:
    return remote(store) / "files/md5" / md5[:2] / md5[2:]
