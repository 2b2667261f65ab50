"""The whole flow on months as TLC publishes them, from the folder that TLC_DATA names."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow.entities import Run

from bench import tutorial
from flows.lifecycle.monitoring import Monitored
from flows.platform.artifact_store import artifact_path, read
from flows.taxi.monitor import taxi_monitor
from flows.taxi.score import taxi_score
from tests.e2e.flows.whole_runs import MODEL_NAME, Place, artifacts, ended, run

pytestmark = pytest.mark.server

TRAIN, VALID = "2023-01", "2023-02"


def tutorial_rmse(folder: Path) -> float:
    """The tutorial's linear model on its own rows, solved exactly.

    One weight for each route and one for the distance: within a route, the distance explains what
    the route's mean does not. A route never seen gets the mean of the routes' weights, as the
    solution of smallest norm has it, which is the one that scikit-learn looks for.
    """
    train, valid = (
        tutorial.load(folder / f"green_tripdata_{month}.parquet") for month in (TRAIN, VALID)
    )
    train["route"], valid["route"] = (routes(month) for month in (train, valid))
    columns = ["trip_distance", "duration"]
    means = train.groupby("route")[columns].mean()
    apart = train[columns] - means.loc[train["route"]].to_numpy()
    miles = float((apart.prod(axis=1)).sum() / (apart["trip_distance"] ** 2).sum())
    weights = means["duration"] - miles * means["trip_distance"]
    of_route = valid["route"].map(weights).fillna(weights.mean())
    predicted = of_route + miles * valid["trip_distance"]
    return float(np.sqrt(((valid["duration"] - predicted) ** 2).mean()))


def routes(trips: pd.DataFrame) -> pd.Series:
    return trips.PULocationID.astype(str) + "_" + trips.DOLocationID.astype(str)


def named(runs: list[Run], name: str) -> Run:
    (found,) = (r for r in runs if r.info.run_name == name)
    return found


def test_real_months_end_with_a_champion_that_beats_the_course(here: Place, tlc_data: Path) -> None:
    done = run(
        data=str(tlc_data),
        train_month=TRAIN,
        valid_month=VALID,
        num_trials=5,
        max_inference_time=1e-3,  # whatever else this machine does
    )
    assert ended(done) == ("Completed", "")
    assert here.champion() == "1"

    runs = here.runs_of(done)
    baseline = named(runs, "linear baseline").data.metrics["rmse_course"]
    assert baseline == pytest.approx(tutorial_rmse(tlc_data), abs=1e-3)
    best = min(r.data.metrics["rmse_valid"] for r in runs if "rmse_valid" in r.data.metrics)
    assert best < 4.3

    report = str(artifacts(done.id)["taxi-train-report"].data)
    for month in (TRAIN, VALID):
        raw = pl.scan_parquet(tlc_data / f"green_tripdata_{month}.parquet")
        rows, kept, quarantined = (
            frame.select(pl.len()).collect().item()
            for frame in (
                raw,
                *(
                    pl.scan_parquet(f"{here.store}/runs/{done.id}/{part}/{month}.parquet")
                    for part in ("kept", "quarantine")
                ),
            )
        )
        assert rows == kept + quarantined
        assert all(f"{count:,}" in report for count in (rows, kept, quarantined))

    # the neighbour of the month that the model was chosen on is like it
    for flow in (taxi_score, taxi_monitor):
        assert ended(run(flow, data=str(tlc_data), month=TRAIN))[0] == "Completed"
    record = artifact_path(here.store, "monitoring", MODEL_NAME, f"{TRAIN}.json")
    found = Monitored.model_validate_json(read(record))
    assert found.past == []
    assert found.truths > 0.9 * found.rows
