"""Whole runs that score a month with the champion of a whole training run."""

from pathlib import Path

import polars as pl
import pytest

from flows.fraud.score import fraud_score
from flows.fraud.source import synthetic_transactions
from flows.fraud.train import fraud_train
from flows.lifecycle.scoring import Scored, read_record
from flows.platform.artifact_store import artifact_path, read_parquet
from flows.taxi.score import taxi_score
from flows.taxi.synthetic import synthetic_month
from tests.e2e.flows.whole_runs import MODEL_NAME, Place, artifacts, ended, put_month, run

pytestmark = pytest.mark.server


def record(here: Place, model: str, month: str) -> Scored:
    found = read_record(here.store, model, month)
    assert found
    return found


def test_a_month_of_trips_is_scored_once_each_row_accounted_for(here: Place) -> None:
    for month in ("2023-01", "2023-02"):
        put_month(here.folder, month, rows=2_000)
    limits = {"max_rmse_valid": 100, "max_inference_time": 1, "num_trials": 1}
    months = {"train_month": "2023-01", "valid_month": "2023-02"}
    trained = run(data=str(here.folder), **months, **limits)
    assert ended(trained)[0] == "Completed"

    trips = synthetic_month("2023-03", rows=500).drop("lpep_dropoff_datetime")  # not over yet
    times = pl.when(pl.int_range(pl.len()) >= 7).then("lpep_pickup_datetime")
    zones = pl.col("PULocationID").cast(pl.String)
    odd = pl.when(pl.int_range(pl.len()) == 9).then(pl.lit("the airport")).otherwise(zones)
    put_month(
        here.folder, "2023-03", trips.with_columns(lpep_pickup_datetime=times, PULocationID=odd)
    )
    made = run(taxi_score, data=str(here.folder), month="2023-03")
    assert ended(made)[0] == "Completed", made.state
    found = record(here, MODEL_NAME, "2023-03")
    assert (found.rows, found.version, found.flow_run) == (500, "1", str(made.id))
    assert found.quarantined == {"no answer": 7, "PULocationID unreadable": 1}
    scores = read_parquet(artifact_path(found.scores))
    assert scores.height == 492
    assert scores["prediction"].is_between(0, 200).all()
    quarantined = read_parquet(artifact_path(found.quarantine))
    assert sorted(quarantined["row"]) == [*range(7), 9]
    assert "the airport" in quarantined["PULocationID"].to_list()
    page = artifacts(made.id)[f"{MODEL_NAME}-scores"]
    assert "has scored 492 of 500 rows of 2023-03" in str(page.data)

    assert ended(run(taxi_score, data=str(here.folder), month="2023-03"))[0] == "Completed"
    assert record(here, MODEL_NAME, "2023-03") == found


def test_transactions_without_labels_are_scored_and_flagged(here: Place, tmp_path: Path) -> None:
    data = tmp_path / "labelled"
    data.mkdir()
    synthetic_transactions(1, 8_000).write_csv(data / "train_transaction-1.csv")
    assert ended(run(fraud_train, data_path=str(data), version="1", stage="dev"))[0] == "Completed"
    file = tmp_path / "new.csv"
    synthetic_transactions(2, 4_000).drop("isFraud").write_csv(file)
    made = run(fraud_score, data_path=str(file), month="2026-05")
    assert ended(made)[0] == "Completed", made.state
    found = record(here, "fraud-classifier", "2026-05")
    assert (found.rows, found.quarantined) == (4_000, {"TransactionAmt <= 0": 2})
    scores = read_parquet(artifact_path(found.scores))
    assert scores["TransactionID"].n_unique() == 3_998
    assert set(scores["flag"]) == {0, 1}
    assert (
        scores.filter(pl.col("flag") == 1)["score"].min()
        > scores.filter(pl.col("flag") == 0)["score"].max()
    )  # type: ignore[operator]


def test_without_a_champion_a_run_fails_and_says_what_to_do(here: Place) -> None:
    state, message = ended(run(taxi_score, month="2023-03"))
    assert state == "Failed"
    assert "there is no model 'taxi-trip-duration'" in message
