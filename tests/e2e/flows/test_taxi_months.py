"""The training flow on one month and on several: on a Prefect server."""

from pathlib import Path

import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter

from flows.lifecycle.holdout import load_kept
from flows.lifecycle.registry import recorded_lineage
from flows.lifecycle.reproduce import reproduce
from flows.taxi import contract
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month
from tests.e2e.flows.whole_runs import Place, artifacts, ended, put_month, run

pytestmark = pytest.mark.server

PICKUP, DROPOFF = "lpep_pickup_datetime", "lpep_dropoff_datetime"
LIMITS = {"max_inference_time": 1e-2, "max_rmse_valid": 30, "num_trials": 2, "max_bad_share": 1}
EARLY, LATE = "2023-02, days 1 to 21", "2023-02, days 22 to 28"


def drifted(here: Place) -> str:
    """A folder with two months as they were, and one whose trips last twice as long."""
    for month in ("2022-12", "2023-01"):
        put_month(here.folder, month, rows=4_000)
    longer = pl.col(PICKUP) + 2 * (pl.col(DROPOFF) - pl.col(PICKUP))
    frame = synthetic_month("2023-02", rows=4_000).with_columns(longer.alias(DROPOFF))
    put_month(here.folder, "2023-02", frame)
    return str(here.folder)


def test_a_run_on_the_month_that_drifted_beats_the_champion_of_before(here: Place) -> None:
    data = drifted(here)
    first = run(data=data, train_month="2022-12", valid_month="2023-01", **LIMITS)
    assert ended(first) == ("Completed", "")
    again = run(data=data, train_month="2023-02", one_month=True, **LIMITS)
    assert ended(again) == ("Completed", "")
    assert again.name == f"train {EARLY}, validate {LATE}"
    assert here.champion() == "2"
    version = here.client.get_model_version(SPEC.name, "2")
    assert f"trained on {EARLY}, validated on {LATE}: RMSE" in (version.description or "")
    by_name = {found.info.run_name: found.data.params for found in here.runs_of(again)}
    for name in ("linear baseline", "xgboost search"):
        assert {"train_month": EARLY, "valid_month": LATE}.items() <= by_name[name].items()
    page = str(artifacts(again.id)["taxi-train-report"].data)
    assert "| days 22 to 28 (validate) |" in page
    # compared on the month's own holdout, which the champion of before hasn't seen either
    lineage = recorded_lineage(here.client, SPEC, "2")
    (seen,) = lineage.seen
    assert (seen.name, seen.held_out_by) == (lineage.holdout.data, lineage.holdout.held_out_by)
    assert seen.name == "green_tripdata 2023-02"
    kept = contract.check(pl.read_parquet(seen.uri), "2023-02", seen.uri, max_bad_share=1).kept
    assert load_kept(lineage.holdout).join(kept, on=kept.columns, how="anti").is_empty()
    assert reproduce(here.client, SPEC.name, "2").startswith(f"{SPEC.name} version 2 is reproduced")
    # and the next month's run can be compared with it
    later = run(data=data, train_month="2023-01", valid_month="2023-02", **LIMITS)
    assert ended(later) == ("Completed", "")
    assert here.champion() == "2"


def test_the_month_is_prepared_once(here: Place) -> None:
    put_month(here.folder, "2023-01", rows=3_000)
    done = run(data=str(here.folder), train_month="2023-01", one_month=True, **LIMITS)
    assert (ended(done), here.champion()) == (("Completed", ""), "1")
    of_run = TaskRunFilter.model_validate({"name": {"like_": "prepare-2023-01"}})
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(task_run_filter=of_run)
        mine = [each for each in runs if each.start_time and each.start_time > done.start_time]  # type: ignore[operator]
    assert len(mine) == 1
    assert Path(here.store, "runs", str(done.id), "parts").is_dir()


def test_a_model_is_trained_on_as_many_months_as_a_run_asks_for(here: Place) -> None:
    months = ("2022-11", "2022-12", "2023-01", "2023-02")
    for month in months:
        put_month(here.folder, month, rows=2_000)
    given: dict[str, object] = {"data": str(here.folder), "train_month": "2023-01", **LIMITS}
    done = run(**given, num_months=3)
    assert ended(done) == ("Completed", "")
    assert done.name == "train 2022-11 to 2023-01, validate 2023-02"
    version = here.client.get_model_version(SPEC.name, "1")
    assert "trained on 2022-11 to 2023-01, validated on 2023-02" in (version.description or "")
    lineage = recorded_lineage(here.client, SPEC, "1")
    assert [seen.name for seen in lineage.seen] == [f"green_tripdata {each}" for each in months]
    assert [bool(seen.held_out_by) for seen in lineage.seen] == [False, False, False, True]
    for found in here.runs_of(done):
        read = [(d.tags[0].value, d.dataset.name) for d in found.inputs.dataset_inputs]
        names = [f"green_tripdata {month}" for month in months]
        uses = ["training"] * 3 + ["validation"]
        assert sorted(read) == list(zip(uses, names, strict=True))
    kept = sum(seen.rows for seen in lineage.seen[:3])
    table = str(artifacts(done.id)["taxi-train-report"].data)
    assert "| rows | 2022-11 to 2023-01 (train) | 2023-02 (validate) |" in table
    assert f"| rows kept | {kept:,} | {lineage.seen[3].rows:,} |" in table
    said = reproduce(here.client, SPEC.name, "1")
    assert said.startswith(f"{SPEC.name} version 1 is reproduced")
    # with a third of the rows, it is another model
    alone = run(**given)
    assert ended(alone) == ("Completed", "")
    rmse = [
        min(each.data.metrics.get("rmse_valid", 99) for each in here.runs_of(found))
        for found in (done, alone)
    ]
    assert rmse[0] != rmse[1]
