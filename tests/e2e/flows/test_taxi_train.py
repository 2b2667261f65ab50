"""The whole training flow: on a Prefect server, with MLflow on a SQLite file."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from mlflow.entities import Run
from packaging.requirements import Requirement
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.results import ResultRecordMetadata
from prefect.states import Scheduled

from flows.lifecycle.champion import ModelRefusedError, load_champion
from flows.lifecycle.holdout import load_kept
from flows.taxi import contract
from flows.taxi.models import TRUSTED_TYPES, loads
from flows.taxi.preprocess import preprocess
from flows.taxi.report import Dataset
from flows.taxi.search import Trial, search
from flows.taxi.source import raw_month
from tests.conftest import ROOT
from tests.e2e.flows.whole_runs import (
    MODEL_NAME,
    Place,
    artifacts,
    ended,
    execute,
    place,
    put_month,
    run,
    schedule,
)

pytestmark = pytest.mark.server

FIFTH_OF_MARCH = datetime(2024, 3, 5, 6, tzinfo=UTC)
# months that TLC has published by then
JANUARY, FEBRUARY = "2023-12", "2024-01"
TRIALS = 3


@dataclass(frozen=True)
class Trained:
    """One run of the flow, for many tests to look at."""

    place: Place
    run: FlowRun

    @property
    def preprocess_run(self) -> FlowRun:
        (found,) = subflows(self.run)
        return found

    def mlflow_run(self, name: str) -> Run:
        (found,) = (r for r in self.place.runs_of(self.run) if r.info.run_name == name)
        return found

    @property
    def champion_run(self) -> Run:
        version = self.place.client.get_model_version(MODEL_NAME, "1")
        return self.place.client.get_run(version.run_id or "")

    def stored(self, *parts: str) -> Path:
        return Path(self.place.store, "runs", str(self.run.id), *parts)


def subflows(of: FlowRun) -> list[FlowRun]:
    parent = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[of.id]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=parent)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, prefect_server: str
) -> Iterator[Trained]:
    """A run on synthetic months, scheduled long before it starts."""
    with place(tmp_path_factory.mktemp("trained"), empty_database) as here:
        done = execute(schedule(FIFTH_OF_MARCH, num_trials=TRIALS, max_inference_time=1e-3))
        assert ended(done) == ("Completed", ""), done.state
        yield Trained(here, done)


def test_the_new_champion_is_an_event_of_its_run(trained: Trained, prefect_server: str) -> None:
    events = []
    for _ in range(30):  # it is sent beside the run
        wanted = {"filter": {"event": {"name": ["trainyard.model.promoted"]}}}
        events = httpx.post(f"{prefect_server}/events/filter", json=wanted).json()["events"]
        of_run = f"prefect.flow-run.{trained.run.id}"
        events = [e for e in events if of_run in json.dumps(e["related"])]
        if events:
            break
        time.sleep(0.5)
    (event,) = events
    assert event["resource"]["prefect.resource.id"] == f"trainyard.model.{MODEL_NAME}"
    assert (event["payload"]["model"], event["payload"]["version"]) == (MODEL_NAME, "1")
    assert "the first one, rmse " in event["payload"]["description"]


def test_the_run_is_named_after_the_newest_months_by_its_scheduled_time(trained: Trained) -> None:
    assert trained.run.name == f"train {JANUARY}, validate {FEBRUARY}"
    assert trained.preprocess_run.name == f"preprocess {JANUARY} to {FEBRUARY}"


def test_it_ends_with_a_champion_that_says_where_it_comes_from(trained: Trained) -> None:
    version = trained.place.client.get_model_version_by_alias(MODEL_NAME, "champion")
    assert str(version.version) == "1"
    description = version.description or ""
    assert description.startswith("2024-03-05 06:00 UTC: trial ")
    assert "of experiment 'taxi-train 2024-03-05 06:00:00.000Z'" in description
    assert f"trained on {JANUARY}, validated on {FEBRUARY}" in description


def test_the_champion_is_the_best_trial_and_better_than_the_baseline(trained: Trained) -> None:
    runs = trained.place.runs_of(trained.run)
    rmse = [r.data.metrics["rmse_valid"] for r in runs if "rmse_valid" in r.data.metrics]
    champion = trained.champion_run
    assert champion.data.metrics["rmse_valid"] == min(rmse)
    assert champion.data.tags["model"] == "xgboost"
    baseline = trained.mlflow_run("linear baseline").data.metrics["rmse_valid"]
    assert champion.data.metrics["rmse_valid"] < 0.95 * baseline


def test_the_experiment_is_named_from_the_scheduled_time_and_links_to_prefect(
    trained: Trained,
) -> None:
    experiment = trained.place.experiment_of(trained.run)
    assert experiment.name == "taxi-train 2024-03-05 06:00:00.000Z"
    note = experiment.tags["mlflow.note.content"]
    assert f"/runs/flow-run/{trained.run.id})" in note
    assert trained.run.name in note


def test_every_mlflow_run_links_to_prefect(trained: Trained) -> None:
    for found in trained.place.runs_of(trained.run):
        assert found.data.tags["prefect.flow_run_id"] == str(trained.run.id)
        assert f"/runs/flow-run/{trained.run.id})" in found.data.tags["mlflow.note.content"]
        assert found.info.status == "FINISHED"


def test_trials_are_nested_runs_with_their_parameters(trained: Trained) -> None:
    search = trained.mlflow_run("xgboost search")
    assert search.data.params == {
        "train_month": JANUARY,
        "valid_month": FEBRUARY,
        "num_trials": str(TRIALS),
        "seed": "42",
    }
    trials = [trained.mlflow_run(f"trial {number + 1}") for number in range(TRIALS)]
    for trial in trials:
        assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert {"max_depth", "learning_rate", "min_child_weight"} < trial.data.params.keys()
        assert {"rmse_valid", "inference_time", "rounds"} <= trial.data.metrics.keys()
    names = {"xgboost search", "linear baseline", *(trial.info.run_name for trial in trials)}
    assert {r.info.run_name for r in trained.place.runs_of(trained.run)} == names


def test_the_two_models_of_interest_have_metrics_and_plots(trained: Trained) -> None:
    for found in (trained.mlflow_run("linear baseline"), trained.champion_run):
        assert 0.01 < found.data.metrics["inference_time"] < 1e3  # microseconds
        assert 3 < found.data.metrics["rmse_valid"] < 8
        assert 3 < found.data.metrics["rmse_course"] < 12
        files = {f.path for f in trained.place.client.list_artifacts(found.info.run_id)}
        assert {"predicted_vs_actual.png", "feature_importance.png"} <= files


def test_the_logged_model_has_signature_example_and_requirements(trained: Trained) -> None:
    version = trained.place.client.get_model_version(MODEL_NAME, "1")
    logged = trained.place.client.get_logged_model((version.source or "").removeprefix("models:/"))
    folder = Path(logged.artifact_location)
    described = (folder / "MLmodel").read_text()
    assert '"name": "lpep_pickup_datetime"' in described.replace('\\"', '"')
    example = json.loads((folder / "input_example.json").read_text())
    assert example["columns"] == [
        "lpep_pickup_datetime",
        "PULocationID",
        "DOLocationID",
        "trip_distance",
    ]
    assert len(example["data"]) == 5
    requirements = (folder / "requirements.txt").read_text().splitlines()
    names = [line.partition("==")[0] for line in requirements]
    assert all("==" in line for line in requirements), requirements
    assert {"polars", "scikit-learn", "skops"} < set(names)
    xgboost = [Requirement(line) for line in requirements if line.startswith("xgboost")]
    for platform, wanted in (("linux", "xgboost-cpu"), ("darwin", "xgboost")):
        on = [r.name for r in xgboost if r.marker and r.marker.evaluate({"sys_platform": platform})]
        assert on == [wanted]


def test_quarantined_rows_are_kept_with_their_rule_and_counted_in_prefect(
    trained: Trained,
) -> None:
    counted: dict[str, dict[str, int]] = {JANUARY: {}, FEBRUARY: {}}
    table = artifacts(trained.preprocess_run.id)["taxi-quarantine"]
    for row in json.loads(str(table.data)):
        counted[Path(row["file"]).stem[-7:]][row["rule"]] = row["rows"]
    for month, counts in counted.items():
        quarantine = pl.read_parquet(trained.stored("quarantine", f"{month}.parquet"))
        assert counts == dict(quarantine["rule"].value_counts().iter_rows())
        assert len(counts) > 5
        raw = pl.read_parquet(
            Path(trained.place.store, f"raw/synthetic/green_tripdata_{month}.parquet")
        )
        assert set(raw.columns) < set(quarantine.columns)
        kept = pl.read_parquet(trained.stored("kept", f"{month}.parquet"))
        assert raw.height == kept.height + quarantine.height


def test_the_report_shows_rows_models_and_links(trained: Trained) -> None:
    page = artifacts(trained.run.id)["taxi-train-report"]
    text = str(page.data)
    assert text.startswith(f"# {MODEL_NAME} version 1 is the new champion")
    assert "| rows read | 40,000 | 40,000 |" in text
    for name in ("linear baseline", trained.champion_run.info.run_name):
        assert f"[{name}](" in text
    assert f"/runs/flow-run/{trained.run.id})" in text
    query = "workflowType=machine_learning&compareRunsMode=CHART&orderByKey="
    assert f"- MLflow experiment: [{trained.place.tracking_uri}/#/experiments/" in text
    assert query in text
    assert "The course's rows are those" in text


def test_the_registered_model_says_what_it_is(trained: Trained) -> None:
    registered = trained.place.client.get_registered_model(MODEL_NAME)
    assert "Minutes that a trip of New York's green taxis takes" in (registered.description or "")


def test_every_mlflow_run_has_its_code_and_its_data(trained: Trained) -> None:
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for found in trained.place.runs_of(trained.run):
        tags = found.data.tags
        assert tags["mlflow.source.name"] == "flows/taxi/train.py:taxi_train"
        assert tags["mlflow.source.git.commit"].removesuffix("-dirty") == commit.strip()
        data = {d.tags[0].value: d.dataset for d in found.inputs.dataset_inputs}
        for context, month in (("training", JANUARY), ("validation", FEBRUARY)):
            raw = Path(trained.place.store, f"raw/synthetic/green_tripdata_{month}.parquet")
            digest = hashlib.sha256(raw.read_bytes()).hexdigest()
            assert data[context].name == f"green_tripdata {month}"
            assert digest.startswith(data[context].digest)
            assert json.loads(data[context].profile) == {"num_rows": 40_000, "sha256": digest}


def test_what_a_run_persists_holds_no_pickle(trained: Trained) -> None:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                id=FlowRunFilterId(any_=[trained.run.id, trained.preprocess_run.id])
            )
        )
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))
        )
    stored = [run.state.data for run in [*runs, *tasks] if run.state and run.state.data]
    kept = [data for data in stored if isinstance(data, ResultRecordMetadata)]
    assert {data.serializer.type for data in kept} == {"json"}
    of_preprocess = trained.preprocess_run.state
    assert of_preprocess
    assert isinstance(of_preprocess.data, ResultRecordMetadata)


def test_the_champion_that_is_loaded_is_the_one_that_was_registered(trained: Trained) -> None:
    uri = trained.place.tracking_uri
    model = load_champion(MODEL_NAME, TRUSTED_TYPES, tracking_uri=uri)
    raw = pl.read_parquet(
        Path(trained.place.store, f"raw/synthetic/green_tripdata_{FEBRUARY}.parquet")
    )
    assert np.isfinite(model.predict(raw)).all()
    version = trained.place.client.get_model_version(MODEL_NAME, "1")
    logged = trained.place.client.get_logged_model((version.source or "").removeprefix("models:/"))
    code = Path(logged.artifact_location, "code/flows/taxi/features.py")
    text = code.read_text()
    code.write_text(f"{text}\nimport os\n")
    try:
        with pytest.raises(ModelRefusedError, match=f"{MODEL_NAME} version 1 isn't what was reg"):
            load_champion(MODEL_NAME, TRUSTED_TYPES, tracking_uri=uri)
    finally:
        code.write_text(text)


def test_progress_ends_with_all_trials_done(trained: Trained) -> None:
    progress = artifacts(trained.run.id)["taxi-search-progress"]
    assert float(str(progress.data)) == 100
    best = trained.champion_run.data.metrics["rmse_valid"]
    assert progress.description == f"{TRIALS} of {TRIALS} trials, best RMSE {best:.3f} min"


ELSEWHERE = """
import json, sys
import mlflow, numpy as np, pandas as pd
zones = ["PULocationID", "DOLocationID"]
raw = pd.read_parquet("raw.parquet")
assert raw["DOLocationID"].dtype == "float64"
frames = [
    raw,
    raw.astype(dict.fromkeys(zones, "Int64")),
    raw.astype({"lpep_pickup_datetime": "datetime64[s]"}),
    raw.fillna({"DOLocationID": 999}).astype(dict.fromkeys(zones, "uint64")),
    pd.read_parquet("raw.parquet", dtype_backend="numpy_nullable"),
    pd.read_parquet("raw.parquet", dtype_backend="pyarrow"),
]
model = mlflow.pyfunc.load_model(sys.argv[1])
import flows.taxi.features
answers = [np.asarray(model.predict(frame)).tolist() for frame in frames]
json.dump({"answers": answers, "code": flows.taxi.features.__file__}, open("answers.json", "w"))
"""


def test_the_champion_predicts_from_raw_trips_in_a_process_that_has_no_trainyard(
    trained: Trained, tmp_path: Path
) -> None:
    trips = pl.read_parquet(
        Path(trained.place.store, f"raw/synthetic/green_tripdata_{FEBRUARY}.parquet")
    )
    absurd = trips.sort("trip_distance", descending=True).head(20)
    zoneless = trips.filter(pl.col("DOLocationID").is_null())
    assert zoneless.height > 0
    without = trips.filter(pl.col("trip_distance") == 0).head(20)
    raw = pl.concat([trips.head(100), absurd, without, zoneless])
    raw.write_parquet(tmp_path / "raw.parquet")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": trained.place.tracking_uri,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, f"models:/{MODEL_NAME}@champion"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "answers.json").read_text())
    assert str(trained.place.folder) in said["code"], "the model brings its own code"
    pipeline = loads(
        trained.stored("models", f"{trained.champion_run.info.run_id}.skops").read_bytes()
    )
    expected = pipeline.predict(raw)
    assert np.isfinite(expected).all()
    for answers in said["answers"]:
        np.testing.assert_allclose(answers, expected, rtol=1e-6)


@pytest.fixture
def months(tmp_path: Path) -> dict[str, object]:
    """Parameters for a quick run on months in a folder."""
    folder = tmp_path / "months"
    folder.mkdir()
    for month in ("2023-01", "2023-02", "2023-03"):
        put_month(folder, month, rows=2_000)
    return {
        "data": str(folder),
        "train_month": "2023-01",
        "num_trials": 1,
        "max_rmse_valid": 60.0,
        "max_inference_time": 1e-2,
    }


def test_a_second_run_that_is_no_better_is_kept_and_a_hopeless_third_changes_nothing(
    here: Place, months: dict[str, object]
) -> None:
    assert ended(run(**months)) == ("Completed", "")
    assert (here.champion(), here.registered()) == ("1", ["1"])
    second = run(**months)
    assert ended(second) == ("Completed", "")
    assert (here.champion(), sorted(here.registered())) == ("1", ["1", "2"])
    page = str(artifacts(second.id)["taxi-train-report"].data)
    assert page.startswith(f"# {MODEL_NAME} version 2 is registered, kept champion v1: it isn't")
    assert len(here.client.search_experiments(filter_string="name LIKE 'taxi-train%'")) == 2

    hopeless = run(**months | {"max_rmse_valid": 0.1, "max_inference_time": 0.25})
    name, message = ended(hopeless)
    assert name == "Failed"
    assert (
        "NoCandidateError: no run satisfies rmse_valid < 0.1 and inference_time < 0.25" in message
    )
    runs = [r for r in here.runs_of(hopeless) if "rmse_valid" in r.data.metrics]
    best = min(runs, key=lambda each: float(each.data.metrics["rmse_valid"]))
    assert f"the best, '{best.info.run_name}', has {best.data.metrics['rmse_valid']:.3f}" in message
    assert (here.champion(), sorted(here.registered())) == ("1", ["1", "2"])


def test_what_is_fitted_does_not_depend_on_the_validation_month(
    here: Place, months: dict[str, object]
) -> None:
    fitted = []
    for valid in ("2023-02", "2023-03"):
        workspace = str(here.folder / valid)
        dataset = preprocess(
            months["data"], ["2023-01"], valid, contract.DURATIONS, 0.5, here.store, workspace
        )
        assert isinstance(dataset, Dataset)
        fitted.append(loads(Path(dataset.transformer).read_bytes()))
    assert len(fitted[0].routes_) > 100
    np.testing.assert_array_equal(fitted[0].routes_, fitted[1].routes_)
    np.testing.assert_array_equal(fitted[0].route_miles_, fitted[1].route_miles_)


def test_models_are_compared_on_the_same_trips_whatever_they_were_trained_on(here: Place) -> None:
    for month in ("2023-01", "2023-02"):
        put_month(here.folder, month, rows=1_000)
    months, unseen = (["2023-01"], "2023-02"), []
    for shortest, longest in ((1, 60), (1, 20), (0, 90)):
        workspace = str(here.folder / f"up to {longest}")
        durations = (float(shortest), float(longest))
        dataset = preprocess(str(here.folder), *months, durations, 1, here.store, workspace)
        assert isinstance(dataset, Dataset)
        unseen.append(dataset.holdout)
        seen = pl.read_parquet(dataset.valid_rows)
        assert seen["duration"].is_between(*durations).all()
        both = seen.join(load_kept(dataset.holdout), on=seen.columns, how="semi")
        assert both.is_empty()
    assert unseen[0].sha256 == unseen[1].sha256 == unseen[2].sha256


def test_months_without_a_bad_row_have_no_quarantine_and_train_as_any(
    here: Place, months: dict[str, object]
) -> None:
    folder = Path(str(months["data"]))
    for path in folder.iterdir():
        month = path.stem.removeprefix("green_tripdata_")
        trips = pl.read_parquet(path)
        put_month(folder, month, contract.check(trips, month, "x", 1).kept)
    done = run(**months)
    assert ended(done) == ("Completed", "")
    assert not Path(here.store, "runs", str(done.id), "quarantine").exists()


def test_a_killed_run_goes_on_where_it_was(
    here: Place, months: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[object] = []

    def counted(*arguments: object) -> object:
        prepared.append(arguments)
        return raw_month(*arguments)  # type: ignore[arg-type]

    def killed(
        *arguments: object,
    ) -> list[Trial]:
        found = search(*arguments)  # type: ignore[arg-type]
        assert found
        raise SystemExit("the machine is gone")

    monkeypatch.setattr("flows.taxi.preprocess.raw_month", counted)
    waiting = schedule(FIFTH_OF_MARCH, **months)
    with monkeypatch.context() as broken:
        broken.setattr("flows.taxi.search.search", killed)
        with pytest.raises(SystemExit):
            execute(waiting)
    assert here.registered() == []
    left = {r.info.run_id for r in here.runs_of(waiting)}
    assert len(left) == 3  # the baseline, the search and its one trial

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(waiting.id, Scheduled(), force=True)
    done = execute(waiting)
    assert ended(done)[0] == "Completed"
    assert len(prepared) == 2, "each month once"
    assert here.champion() == "1"
    names = [r.info.run_name for r in here.runs_of(done)]
    assert sorted(names) == ["linear baseline", "trial 1", "xgboost search"]
    (kept,) = left & {r.info.run_id for r in here.runs_of(done)}
    assert here.client.get_run(kept).info.run_name == "linear baseline"
