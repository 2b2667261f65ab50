import resource
import signal
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from aiohttp import ClientPayloadError
from upath import UPath

from flows.platform.artifact_store import (
    ArtifactStoreError,
    artifact_path,
    files_in,
    local_file,
    parquet_outline,
    read,
    read_parquet,
    write,
    write_parquet,
    writing,
)

FRAME = pl.DataFrame({"zone": [74, 75], "miles": [1.5, None]})


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture(params=["plain", "file-uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "plain" else tmp_path.as_uri()


def test_a_frame_comes_back_as_it_was_written_in_folders_made_on_the_way(store: str) -> None:
    path = artifact_path(store, "runs", "a", "frame.parquet")
    write_parquet(FRAME, path)
    assert read_parquet(path).equals(FRAME)
    assert read_parquet(path, columns=["miles"]).columns == ["miles"]


def test_a_file_is_a_local_one_while_it_is_read(store: str, tmp_path: Path) -> None:
    path = artifact_path(store, "note.txt")
    write(path, b"here")
    with local_file(path) as local:
        assert local == tmp_path / "note.txt"
    far = UPath("memory://bucket/note.txt")
    far.write_bytes(b"far" * 1_000_000)
    with local_file(far) as copy:
        assert copy.read_bytes() == b"far" * 1_000_000
    assert not copy.exists()
    for missing in (artifact_path(store, "no.txt"), UPath("memory://bucket/no.txt")):
        with pytest.raises(ArtifactStoreError, match=r"no\.txt: there is no such"):
            local_file(missing).__enter__()


def test_the_files_of_a_folder_come_by_name_and_no_folder_is_none(store: str) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        write(artifact_path(store, "in", name), b"")
    found = files_in(artifact_path(store, "in"), "*.csv")
    assert [file.name for file in found or ()] == ["a.csv", "b.csv"]
    assert files_in(artifact_path(store, "out"), "*.csv") is None


def test_a_later_write_replaces_the_earlier_one_and_leaves_nothing_else(
    store: str, tmp_path: Path
) -> None:
    path = artifact_path(store, "note.txt")
    write(path, b"first")
    write(path, b"second")
    assert read(path) == b"second"
    assert names(tmp_path) == ["note.txt"]


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(
    store: str, tmp_path: Path
) -> None:
    path = artifact_path(store, "note.txt")
    write(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert read(path) == b"old"
    assert names(tmp_path) == ["note.txt"]


def write_half(path: UPath) -> None:
    with writing(path) as file:
        file.write(b"half of the n")
        file.flush()
        assert read(path) == b"old"
        raise KeyboardInterrupt


def test_nobody_sees_a_new_file_before_it_is_whole(store: str) -> None:
    path = artifact_path(store, "note.txt")
    with writing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert read(path) == b"half"


def test_others_may_read_what_is_written(store: str, tmp_path: Path) -> None:
    write(artifact_path(store, "note.txt"), b"")
    (tmp_path / "usual.txt").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("note.txt", "usual.txt")]
    assert modes[0] == modes[1]


def test_a_missing_file_is_named(store: str) -> None:
    path = artifact_path(store, "absent.parquet")
    with pytest.raises(ArtifactStoreError, match=r"cannot read .*absent\.parquet: .*no such file"):
        read_parquet(path)


def test_a_store_that_is_a_file_is_named_with_advice(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(ArtifactStoreError, match=r"cannot write .*store/a: .*check that it is a"):
        write(artifact_path(str(tmp_path / "store"), "a"), b"")


def test_a_folder_that_may_not_be_written_is_named_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:  # tests may run as root, whom no mode stops
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ArtifactStoreError, match=r"cannot write .*/a: this user may not: change"):
        write(artifact_path(str(tmp_path), "a"), b"")


def test_a_full_disk_is_named_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(ArtifactStoreError, match=r"/a: .*No space left.*disk has space"):
        write_parquet(FRAME, artifact_path(str(tmp_path), "a"))
    assert names(tmp_path) == []


def write_by_pieces(path: UPath) -> None:
    with writing(path) as file:
        for _ in range(100):
            file.write(b"x" * 1_000)


@pytest.mark.parametrize(
    "put",
    [
        lambda path: write(path, b"x" * 100_000),
        lambda path: write_parquet(pl.DataFrame({"a": range(100_000)}), path),
        write_by_pieces,
    ],
    ids=["bytes", "frame", "pieces"],
)
def test_a_disk_that_fills_while_writing_is_named_with_advice(
    tmp_path: Path, put: Callable[[UPath], None]
) -> None:
    path = artifact_path(str(tmp_path), "a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(ArtifactStoreError, match=r"cannot write .*/a: .* disk has space"):
            put(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert names(tmp_path) == []


def test_an_answer_of_s3_that_is_cut_short_is_said_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> bytes:
        raise ClientPayloadError("Response payload is not completed")

    monkeypatch.setattr(UPath, "read_bytes", cut)
    path = artifact_path("s3://bucket", "a.parquet")
    for access in (read, read_parquet, parquet_outline):
        with pytest.raises(ArtifactStoreError, match=r"read s3://.*not completed; check the cred"):
            access(path)


def test_a_name_with_wildcards_is_one_file(tmp_path: Path) -> None:
    path = artifact_path(str(tmp_path), "run [1]*.parquet")
    write_parquet(FRAME, path)
    assert read_parquet(path).equals(FRAME)
