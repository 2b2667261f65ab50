"""Whole runs of the fraud pipeline: its files, its tags, and its gate."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.flow_runs import resume_flow_run

from flows.fraud import contract, tasks
from flows.fraud.source import synthetic_transactions
from flows.fraud.spec import SPEC
from flows.fraud.train import fraud_train
from flows.lifecycle.__main__ import main
from flows.lifecycle.champion import load_champion
from flows.lifecycle.registry import recorded_lineage
from flows.lifecycle.tasks import APPROVAL_TIMEOUT
from flows.platform.artifact_store import (
    ArtifactStoreError,
    artifact_path,
    read_parquet,
    write,
)
from tests.e2e.flows.whole_runs import Place, artifacts, ended, paused, read, run

pytestmark = pytest.mark.server

FILE = "train_transaction-1.csv"


def train(data_path: str, version: str = "1.0.1") -> FlowRun:
    return run(fraud_train, data_path=data_path, version=version, stage="prod")


def put(folder: Path, *seeds: int, rows: int = 8_000) -> str:
    for seed in seeds:
        file = folder / f"train_transaction-{seed}.csv"
        synthetic_transactions(seed, rows).write_csv(file)
    return str(folder)


def test_two_files_become_a_champion_with_its_tags_and_their_bad_rows_are_kept(
    here: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = put(tmp_path, 1, 2)
    check, faults = contract.check, iter([ArtifactStoreError("cannot read: a hiccup")])

    def unreliable(*given: Any) -> Any:
        if fault := next(faults, None):
            raise fault
        return check(*given)

    monkeypatch.setattr(contract, "check", unreliable)
    monkeypatch.setattr(tasks.load_data, "retry_delay_seconds", 0)
    first = train(data)
    assert ended(first) == ("Completed", "")
    version = here.client.get_model_version_by_alias(SPEC.name, "champion")
    wanted = {"version": "1.0.1", "stage": "prod", "owner": "fraud-team"}
    assert wanted.items() <= version.tags.items()
    logged = here.client.get_run(version.run_id or "")
    assert {"benchmark/pr_auc", "benchmark/cost", "threshold"} <= logged.data.metrics.keys()
    assert "confusion.png" in {each.path for each in here.client.list_artifacts(logged.info.run_id)}
    model = load_champion(SPEC.name, SPEC.trusted_types, tracking_uri=here.tracking_uri)
    assert model.threshold == logged.data.metrics["threshold"]

    for seed in (1, 2):
        kept = Path(
            here.store, "runs", str(first.id), "quarantine", f"train_transaction-{seed}.parquet"
        )
        bad = pl.read_parquet(kept)
        assert bad.select("row", "rule").rows() == [
            (row, "TransactionAmt <= 0") for row in (2, 2002, 4002, 6002)
        ]
    table = str(artifacts(first.id)["fraud-quarantine"].data)
    assert table.count('"rows": 4') == 2

    # the same data again: a version of another name, no better, that is trained alike
    second = train(data, "1.0.2")
    page = str(artifacts(second.id)[f"{SPEC.name}-card"].data)
    assert f"# {SPEC.name} version 2 is registered, kept champion v1: it isn't better" in page
    monkeypatch.setattr(sys, "argv", ["model", "reproduce", SPEC.name])
    assert main() == 0
    assert f"{SPEC.name} version 1 is reproduced" in capsys.readouterr().out


@pytest.mark.parametrize("promote", [True, False])
def test_a_run_that_asks_goes_on_by_a_persons_answer(
    here: Place, tmp_path: Path, promote: bool
) -> None:
    given = {"data_path": put(tmp_path, 1), "version": "1", "stage": "prod", "approval": True}
    with paused(fraud_train, **given) as waiting:
        assert [*here.client.get_registered_model(SPEC.name).aliases] == ["challenger"]
        resume_flow_run(waiting.id, run_input={"promote": promote})
    assert ended(read(waiting.id)) == ("Completed", "")
    alias = "champion" if promote else "challenger"
    assert [*here.client.get_registered_model(SPEC.name).aliases] == [alias]


def test_a_run_that_nobody_answers_ends_well_and_promotes_nothing(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (fraud_train.timeout_seconds or 0) > APPROVAL_TIMEOUT
    monkeypatch.setattr("flows.lifecycle.tasks.APPROVAL_TIMEOUT", 1)
    done = run(fraud_train, data_path=put(tmp_path, 1), version="1", stage="prod", approval=True)
    assert ended(done) == ("Completed", "")
    assert "nobody said yes within" in str(artifacts(done.id)[f"{SPEC.name}-card"].data)


def test_it_reads_from_s3_and_keeps_everything_there(
    here: Place, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 1)
    write(artifact_path(s3, "raw", FILE), (tmp_path / FILE).read_bytes())
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", f"{s3}/store")
    done = train(f"{s3}/raw")
    assert ended(done) == ("Completed", "")
    quarantine = artifact_path(s3, "store/runs", str(done.id), "quarantine", "train_transaction-1")
    assert read_parquet(quarantine.with_suffix(".parquet")).height == 4
    holdout = recorded_lineage(here.client, SPEC, "1").holdout
    assert holdout.uri.startswith(f"{s3}/store/holdouts/{SPEC.name}/")
    assert not Path(here.folder, "store").exists()
    missing = train(f"{s3}/nothing")
    assert f"no train_transaction*.csv in {s3}/nothing: there is no such" in ended(missing)[1]


def one_broken(folder: Path) -> str:
    (folder / "train_transaction-2.csv").write_text("TransactionID;isFraud\n1;0\n")
    return put(folder, 1)


def one_twice(folder: Path) -> str:
    put(folder, 1)
    shutil.copy(folder / "train_transaction-1.csv", folder / "train_transaction-2.csv")
    return str(folder)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: str(folder / "no.csv"), r"cannot read .*/no\.csv: there is no such file"),
        (one_broken, r"train_transaction-2\.csv: no column TransactionID, .*, not semicolons"),
        (one_twice, "7,996 TransactionIDs are in two of its files; keep each in one"),
        (lambda folder: put(folder, 1, rows=500), r"18 of 499 transactions are .*: give more"),
    ],
)
def test_what_cannot_be_trained_on_ends_in_a_sentence_and_registers_nothing(
    here: Place, tmp_path: Path, make: Callable[[Path], str], said: str
) -> None:
    name, message = ended(train(make(tmp_path)))
    assert name == "Failed"
    assert re.search(said, message), message
    assert here.registered() == []
