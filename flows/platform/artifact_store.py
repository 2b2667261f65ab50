"""The artifact store: one URI, a folder (`./artifacts`, `file:///...`) or `s3://bucket/prefix`.

S3 takes its endpoint, region and credentials from the environment as every AWS client does
(AWS_ENDPOINT_URL, AWS_REGION, the task's role).
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedRandom, BytesIO
from pathlib import Path
from uuid import uuid4

import polars as pl
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from polars.exceptions import PolarsError
from upath import UPath


class ArtifactStoreError(OSError):
    """The store cannot be read or written: the message says what, where and what to do."""


def artifact_path(uri: str, *parts: str) -> UPath:
    """Return the path of `parts` under the store's `uri`; nothing is read or written."""
    if uri.startswith("s3://"):
        # s3fs would remember a folder's listing for as long as the process lives,
        # and miss what other runs write
        return UPath(uri, use_listings_cache=False).joinpath(*parts)
    return UPath(uri).joinpath(*parts)


@contextmanager
def writing(path: UPath) -> Iterator[BufferedRandom]:
    """Open a temporary local file that becomes `path` when the block ends without an error.

    An OSError or an error of Polars' in the block is taken for one of the file.

    Nobody ever sees half a file under the final name: a folder gets it by a rename, S3 by one
    upload. After an error in the block, `path` is as it was before.

    Raises:
        ArtifactStoreError: the place cannot be written.
    """
    local = _is_local(path)
    # beside the final name, because a rename is atomic within one filesystem only
    folder = Path(path.parent.path if local else tempfile.gettempdir())
    part = folder / f".{path.name}.{uuid4().hex}.part"
    with _explained("write", path):
        folder.mkdir(parents=True, exist_ok=True)
        file = part.open("x+b")
    try:
        with _explained("write", path), file:
            yield file
        with _explained("write", path):
            if local:
                part.replace(path.path)
            else:
                path.fs.put_file(str(part), path.path)
    finally:
        part.unlink(missing_ok=True)


def write(path: UPath, content: bytes) -> None:
    """Write `content` to `path` atomically, over what was there.

    Raises:
        ArtifactStoreError: the place cannot be written.
    """
    with writing(path) as file, _explained("write", path):
        file.write(content)


def read(path: UPath) -> bytes:
    """Return the whole content of `path`.

    Raises:
        ArtifactStoreError: the file is missing or cannot be read.
    """
    with _explained("read", path):
        content: bytes = path.read_bytes()
    return content


@contextmanager
def local_file(path: UPath) -> Iterator[Path]:
    """A file as one of this machine while a block runs: itself, or a copy made piece by piece.

    Raises:
        ArtifactStoreError: the file is missing or cannot be read.
    """
    if _is_local(path):
        with _explained("read", path), path.open("rb"):
            pass
        yield Path(path.path)
        return
    with tempfile.NamedTemporaryFile() as copy:
        with _explained("read", path), path.open("rb") as file:
            shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        yield Path(copy.name)


def files_in(folder: UPath, pattern: str) -> list[UPath] | None:
    """The files of a folder that fit a pattern, by name; None where there is no such folder.

    Raises:
        ArtifactStoreError: it cannot be listed.
    """
    with _explained("read", folder):
        if not folder.is_dir():
            return None
        return sorted(folder.glob(pattern), key=str)


def sha256(path: UPath) -> str:
    """Return the SHA-256 of what `path` holds.

    Raises:
        ArtifactStoreError: the file is missing or cannot be read.
    """
    with _explained("read", path), path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_parquet(frame: pl.DataFrame, path: UPath) -> None:
    """Write `frame` to `path` as Parquet, atomically.

    Raises:
        ArtifactStoreError: the place cannot be written.
    """
    with writing(path) as file, _explained("write", path):
        frame.write_parquet(file)


def read_parquet(path: UPath, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the Parquet file at `path`, or only its `columns`.

    Raises:
        ArtifactStoreError: the file is missing or cannot be read.
        polars.exceptions.PolarsError: it is not a Parquet file, or lacks one of `columns`.
    """
    wanted = list(columns) if columns is not None else None
    with _explained("read", path):
        return pl.read_parquet(_parquet_source(path), columns=wanted, glob=False)


def parquet_outline(path: UPath) -> tuple[int, pl.Schema]:
    """Return the rows and the columns that the footer of a Parquet file names, and read no more.

    Raises:
        ArtifactStoreError, polars.exceptions.PolarsError: as `read_parquet`.
    """
    with _explained("read", path):
        scan = pl.scan_parquet(_parquet_source(path), glob=False)
        return scan.select(pl.len()).collect().item(), scan.collect_schema()


def _parquet_source(path: UPath) -> str | BytesIO:
    return path.path if _is_local(path) else BytesIO(read(path))


def _is_local(path: UPath) -> bool:
    return path.protocol in ("", "file")


@contextmanager
def _explained(verb: str, path: UPath) -> Iterator[None]:
    """Turn what the filesystem or S3 says into one message that a user can act on."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactStoreError(f"cannot {verb} {path}: {_missing(path)}") from error
    except PermissionError as error:
        action = "s3:PutObject" if verb == "write" else "s3:GetObject"
        advice = (
            "this user may not: change the owner or mode of the folder, or choose another one"
            if _is_local(path)
            else f"access denied: the role or key in use needs {action} and s3:ListBucket there"
        )
        raise ArtifactStoreError(f"cannot {verb} {path}: {advice}") from error
    except ArtifactStoreError:
        raise
    except (OSError, BotoCoreError, ClientError, PolarsError) as error:
        # of what is read, Polars' errors say what is wrong with the file itself
        if isinstance(error, PolarsError) and verb == "read":
            raise
        advice = (
            "check that it is a folder and that its disk has space"
            if _is_local(path)
            else "check the credentials, the region, the network and AWS_ENDPOINT_URL"
        )
        fault = str(error) or type(error).__name__
        raise ArtifactStoreError(f"cannot {verb} {path}: {fault}; {advice}") from error


def _missing(path: UPath) -> str:
    bucket = "" if _is_local(path) else path.path.split("/")[0]
    try:
        if bucket and not path.fs.exists(bucket):
            return f"there is no bucket {bucket!r}: create it, or correct the artifact store's URI"
    except (OSError, BotoCoreError):
        pass  # listing may be refused where reading is not: say what is known
    return "there is no such file"
