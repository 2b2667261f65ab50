"""The stages: functions from files to files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from flows.iris import stages
from flows.iris.params import PROJECT, ParamsError, Split, Train, load_params
from flows.iris.spec import PLACE, SPEC
from flows.iris.stages import HOLDOUT, METRICS, MODEL, RAW, TEST, TRAIN, IrisError, read_irises
from flows.lifecycle.spec import load_spec
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DVC's folder with the raw data only."""
    (tmp_path / RAW).parent.mkdir()
    shutil.copy(PROJECT / RAW, tmp_path / RAW)
    return tmp_path


def prepared(folder: Path, test_size: float = 0.2, seed: int = 42) -> dict[str, pl.DataFrame]:
    stages.prepare(folder, Split(test_size=test_size, seed=seed))
    return {name: read_irises(folder / name) for name in (TRAIN, TEST, HOLDOUT)}


def test_each_iris_is_in_one_part_and_each_part_has_all_species(folder: Path) -> None:
    parts = prepared(folder)
    again = pl.concat(parts.values())
    assert again.sort(again.columns).equals(read_irises(folder / RAW).sort(again.columns))
    assert len(parts[TEST]) == pytest.approx(0.2 * (150 - len(parts[HOLDOUT])), abs=1)
    assert all(part[stages.TARGET].n_unique() == 3 for part in parts.values())


def test_whatever_the_parameters_the_same_irises_are_held_out(folder: Path) -> None:
    first, second = prepared(folder), prepared(folder, test_size=0.4, seed=1)
    assert first[HOLDOUT].equals(second[HOLDOUT])
    assert not first[TEST].equals(second[TEST])


def test_the_same_parameters_give_the_same_bytes(folder: Path) -> None:
    prepared(folder)
    before = (folder / TRAIN).read_bytes()
    prepared(folder)
    assert (folder / TRAIN).read_bytes() == before


def test_the_metrics_are_of_the_model_on_the_test_rows(folder: Path) -> None:
    prepared(folder)
    for regularization, least, most in ((1.0, 0.9, 1.0), (1e6, 0.0, 0.89)):
        stages.train(folder, Train(regularization=regularization, max_iter=1000))
        stages.evaluate(folder)
        metrics = json.loads((folder / METRICS).read_text())
        assert metrics.keys() == {"accuracy", "f1_macro"}
        assert least <= metrics["accuracy"] <= most
    assert (folder / MODEL).stat().st_size < 100_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"iris\.csv can't be read: No such file .*; restore or correct it"),
        ("sepal_length,a\n1,2\n", r"iris\.csv can't be read"),
        ("1,2,3,four,setosa\n", r"iris\.csv can't be read: could not parse `four`"),
        ("1,2,3,,setosa\n", r"iris\.csv: line 2 lacks a measurement"),
        ("1,2,3,4,setosa\n1,2,3,4,rose\n", r"iris\.csv: line 3 .* its species is none of setosa"),
    ],
)
def test_an_unusable_file_is_named_with_its_fault(
    text: str | None, told: str, folder: Path
) -> None:
    header = ",".join([*stages.MEASUREMENTS, stages.TARGET]) + "\n"
    (folder / RAW).unlink()
    if text is not None:
        (folder / RAW).write_text(text if "sepal" in text else header + text)
    with pytest.raises(IrisError, match=told):
        stages.prepare(folder, load_params().split)


def test_a_stage_that_fails_in_dvcs_folder_ends_in_one_line(folder: Path) -> None:
    (folder / "params.yaml").write_text("split: {test_size: 2, seed: 1}\ntrain: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "flows.iris.stages", "prepare"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "params.yaml: split.test_size: Input should be less than 1" in done.stderr
    assert "train.max_iter: Field required" in done.stderr


@pytest.mark.parametrize("text", [None, "a: [", "- split", "\x00"])
def test_params_that_are_none_are_told_by_their_file(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ParamsError, match=r"/params\.yaml.*correct it"):
        load_params(file)


def test_neither_dvc_nor_prefect_is_named_where_the_stages_are() -> None:
    script = "import sys, flows.iris.stages; print({'dvc', 'prefect', 'mlflow'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_place_of_the_spec_is_where_it_is() -> None:
    assert load_spec(PLACE) is SPEC
