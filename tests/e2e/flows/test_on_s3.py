"""The same code on S3: MiniStack on loopback, with IAM enforced."""

import json
from collections.abc import Callable
from pathlib import Path

import boto3
import polars as pl
import pytest
from s3fs import S3FileSystem
from upath import UPath

from flows.lifecycle.registry import recorded_lineage
from flows.platform.artifact_store import (
    ArtifactStoreError,
    artifact_path,
    read,
    read_parquet,
    write,
    write_parquet,
    writing,
)
from flows.platform.contract import ContractError
from flows.taxi.contract import check, read_month
from flows.taxi.source import SourceError, raw_month
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from tests.e2e.flows.whole_runs import Place, ended, put_month, run

pytestmark = pytest.mark.server

JANUARY = "green_tripdata_2023-01.parquet"


def keys(uri: str) -> list[str]:
    """What another client sees in the bucket."""
    found = boto3.client("s3").list_objects_v2(Bucket=uri.removeprefix("s3://"))
    return [item["Key"] for item in found.get("Contents", [])]


@pytest.fixture
def reader_of_nothing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the environment with the keys of a user who may list the bucket and no more."""
    iam = boto3.client("iam")
    name = s3.removeprefix("s3://")
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="list", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    S3FileSystem.clear_instance_cache()


def test_a_frame_comes_back_as_it_was_written(s3: str) -> None:
    frame = pl.DataFrame({"zone": [74, 75], "miles": [1.5, None]})
    path = artifact_path(s3, "prefix", "frame.parquet")
    write_parquet(frame, path)
    assert keys(s3) == ["prefix/frame.parquet"]
    assert read_parquet(path).equals(frame)
    assert read_parquet(path, columns=["miles"]).columns == ["miles"]


def test_a_write_that_fails_leaves_the_old_content(s3: str) -> None:
    path = artifact_path(s3, "note.txt")
    write(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert read(path) == b"old"
    assert keys(s3) == ["note.txt"]


def write_half(path: UPath) -> None:
    with writing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt


def test_what_another_run_wrote_meanwhile_is_seen(s3: str) -> None:
    folder = artifact_path(s3, "data")
    write(folder / "a", b"")
    assert [path.name for path in folder.iterdir()] == ["a"]
    boto3.client("s3").put_object(Bucket=s3.removeprefix("s3://"), Key="data/b", Body=b"b")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    assert read(folder / "b") == b"b"


@pytest.mark.parametrize("access", [read, lambda path: write(path, b"")])
def test_a_missing_bucket_is_named_with_advice(s3: str, access: Callable[[UPath], object]) -> None:
    path = artifact_path("s3://trainyard-of-nobody", "a")
    with pytest.raises(ArtifactStoreError, match=r"no bucket 'trainyard-of-nobody': create it"):
        access(path)


def test_a_missing_object_in_a_bucket_is_not_called_a_missing_bucket(s3: str) -> None:
    with pytest.raises(ArtifactStoreError, match=r"cannot read s3://.*/absent: .*no such file"):
        read(artifact_path(s3, "absent"))


def test_a_refused_read_and_write_name_the_permission_that_lacks(
    s3: str, request: pytest.FixtureRequest
) -> None:
    write(artifact_path(s3, "a"), b"")
    request.getfixturevalue("reader_of_nothing")
    with pytest.raises(ArtifactStoreError, match=r"read s3://.*/a: access denied: .* s3:GetObject"):
        read(artifact_path(s3, "a"))
    with pytest.raises(ArtifactStoreError, match=r"write s3://.*/b: access denied: .*s3:PutObject"):
        write(artifact_path(s3, "b"), b"")


def test_an_endpoint_that_does_not_answer_is_said_with_advice(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(ArtifactStoreError, match=r"check the credentials, .* and AWS_ENDPOINT_URL"):
        read(artifact_path(s3, "a"))


def test_a_synthetic_month_is_made_once_and_mended_when_broken(s3: str) -> None:
    store = artifact_path(s3, "store")
    path = raw_month("synthetic", "2023-01", store)
    whole = read(path)
    assert keys(s3) == [f"store/raw/synthetic/{JANUARY}{end}" for end in ("", ".sha256")]
    write(path, whole[:-100])
    assert raw_month("synthetic", "2023-01", store) == path
    assert read(path) == whole


def test_a_raw_month_is_read_from_an_s3_prefix_and_checked(s3: str, tmp_path: Path) -> None:
    write_parquet(synthetic_month("2023-01", rows=500), artifact_path(s3, "raw", JANUARY))
    path = raw_month(f"{s3}/raw", "2023-01", artifact_path(str(tmp_path)))
    checked = check(read_month(path), "2023-01", path.name, max_bad_share=0.2)
    assert checked.rows_read == checked.kept.height + checked.quarantined.height == 500
    write_parquet(checked.quarantined, artifact_path(s3, "quarantine", JANUARY))
    assert read_parquet(artifact_path(s3, "quarantine", JANUARY)).equals(checked.quarantined)


def test_a_month_that_an_s3_prefix_lacks_is_named_with_those_it_has(s3: str) -> None:
    write(artifact_path(s3, "raw", JANUARY), b"")
    with pytest.raises(SourceError, match=r"no green_tripdata_2023-02\.parquet in .*has 2023-01"):
        raw_month(f"{s3}/raw", "2023-02", artifact_path(s3))


def test_an_s3_prefix_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(SourceError, match=r"there is no folder s3://trainyard-of-nobody/raw"):
        raw_month("s3://trainyard-of-nobody/raw", "2023-01", artifact_path(s3))


def test_a_broken_month_on_s3_is_refused_by_its_name(s3: str) -> None:
    write(artifact_path(s3, JANUARY), b"PAR1 no more")
    with pytest.raises(ContractError, match=rf"s3://.*/{JANUARY}: not a whole Parquet file"):
        read_month(artifact_path(s3, JANUARY))


def test_the_whole_pipeline_runs_on_s3(
    here: Place, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in ("2023-01", "2023-02"):
        name = put_month(tmp_path, month, rows=2_000)
        write(artifact_path(s3, "raw", name), (tmp_path / name).read_bytes())
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", f"{s3}/store")
    done = run(
        data=f"{s3}/raw",
        train_month="2023-01",
        num_trials=2,
        max_rmse_valid=60,
        max_inference_time=1e-2,
    )
    assert ended(done) == ("Completed", "")
    assert here.champion() == "1"

    runs = [r for r in here.runs_of(done) if "rmse_valid" in r.data.metrics]
    assert len(runs) == 3
    workspace = f"store/runs/{done.id}"
    lineage = recorded_lineage(here.client, SPEC, "1")
    assert lineage.reference
    assert sorted(key for key in keys(s3) if not key.startswith("raw/")) == sorted(
        [
            *(
                f"{workspace}/{part}/{month}.parquet"
                for part in ("kept", "course", "quarantine", "features")
                for month in ("2023-01", "2023-02")
            ),
            f"{workspace}/features/transformer.skops",
            f"{workspace}/search/2023-02.parquet",
            *(f"{workspace}/models/{r.info.run_id}.skops" for r in runs),
            "store/benchmarks/taxi-trip-duration/000001.parquet",
            f"store/holdouts/taxi-trip-duration/{lineage.holdout.sha256}.parquet",
            f"store/references/taxi-trip-duration/{lineage.reference.sha256}.parquet",
        ]
    )
    assert not Path(here.folder, "store").exists()
    kept, quarantined = (
        read_parquet(artifact_path(s3, workspace, part, "2023-01.parquet"))
        for part in ("kept", "quarantine")
    )
    assert kept.height + quarantined.height == 2_000
