"""What `make demo` refuses before anything starts: whatever the flow itself refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trainyard.laptop import parameters
from trainyard.tools.errors import StackError

OF_THE_OWNER = """
import no_such_package
from datetime import date as day
from typing import Annotated
from pydantic import Field
MOST = 5
@anything(timeout_seconds=3)
async def taxi_train(
    data: str,
    bucket: str,
    since: day,
    num_trials: Annotated[int, Field(le=MOST)] = 1,
    train_month: str = "",
) -> None:
    no_such_package.train()
"""


def refused(*given: Any) -> list[str]:
    with pytest.raises(StackError) as error:
        parameters.demo_of("taxi", *given)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("synthetic", None, None, 0), "TRIALS=0: Input should be greater than or equal to 1"),
        (
            ("synthetic", None, None, 5000),
            "TRIALS=5000: Input should be less than or equal to 1000",
        ),
        (("tlc", "januar", None, None), "TRAIN=januar: 'januar' is not a month"),
        (("tlc", "2023-13", None, None), "TRAIN=2023-13: '2023-13' is not a month"),
        (("tlc", "2023-02", "2023-02", 2), "VALID=2023-02: valid_month 2023-02 is not after"),
        (("tlc", None, "2023-02", 2), "VALID=2023-02: valid_month 2023-02 without a train_month"),
        (
            ("http://me:s3cret@host", None, None, None),
            "DATA: the address in data has a user,",
        ),
        (("https://host/x?sig=s3cret", None, None, None), "DATA: the address in data has a user"),
        (("s3://{x}", None, None, None), "DATA=s3://{x}: String should match"),
    ],
)
def test_what_the_flow_refuses_is_refused_by_the_name_that_was_typed(
    given: tuple[Any, ...], told: str
) -> None:
    (line,) = refused(*given)
    assert line.startswith(told)


def test_all_that_is_wrong_is_told_at_once() -> None:
    lines = refused("no such folder", "2023-1", "23", -1)
    assert [line.split(":")[0].strip() for line in lines] == [
        "no such folder",
        "TRAIN=2023-1",
        "VALID=23",
        "TRIALS=-1",
    ]


def test_what_the_flow_takes_is_handed_on(tmp_path: Path) -> None:
    assert parameters.demo_of("taxi", "synthetic", None, None, None).parameters == {
        "data": "synthetic",
        "train_month": "2023-01",
        "valid_month": "2023-02",
    }
    given = parameters.demo_of("taxi", f"{tmp_path}/..", "2023-01", None, 3).parameters
    assert given == {"data": f"{tmp_path.parent}", "train_month": "2023-01", "num_trials": 3}


def clone(folder: Path, monkeypatch: pytest.MonkeyPatch, of_the_file: str, flow: str) -> None:
    monkeypatch.setattr(parameters, "REPO", folder)
    (folder / "taxi").mkdir()
    (folder / "taxi/flow.py").write_text(flow)
    entry = "- name: x\n  entrypoint: taxi/flow.py:taxi_train\n  tags: [demo]\n  parameters:\n"
    (folder / "prefect.yaml").write_text(f"deployments:\n{entry}{of_the_file}")


def test_an_owners_flow_is_asked_without_what_it_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "    bucket: '{{ $BUCKET }}'\n    since: 2023-01-01\n"
    clone(tmp_path, monkeypatch, given, OF_THE_OWNER)
    assert refused("tlc", None, None, 6) == ["TRIALS=6: Input should be less than or equal to 5"]
    assert refused("tlc", None, "2023-02", 5) == [
        "VALID=2023-02: the flow has no such parameter; it takes data, bucket, since, num_trials, "
        "train_month"
    ]
    assert parameters.demo_of("taxi", "tlc", "2023-01", None, 5).parameters["num_trials"] == 5


def test_the_files_own_parameters_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = (ROOT / "flows/taxi/train.py").read_text()
    clone(tmp_path, monkeypatch, "    train_month: 2023-03\n", own)
    assert (
        parameters.demo_of("taxi", "tlc", None, "2023-04", None).parameters["valid_month"]
        == "2023-04"
    )
    assert "not after train_month 2023-03" in refused("tlc", None, "2023-02", None)[0]


@pytest.mark.parametrize("flow", ["def other(): ...", "def taxi_train(:", "MISSING = 1"])
def test_what_cannot_be_read_is_left_to_the_deploy(
    flow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone(tmp_path, monkeypatch, "    {}\n", flow)
    assert parameters.demo_of("taxi", "tlc", None, None, 0).parameters["num_trials"] == 0


def test_a_demo_is_refused_before_anything_heavy_is_loaded() -> None:
    """So in a second: with these it takes ten."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainyard", "demo", "--trials", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "✗ TRIALS=0: Input should be" in done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"prefect.flows", "mlflow", "polars"}


def test_another_pipeline_is_found_by_its_folder_and_takes_what_its_flow_takes() -> None:
    found = parameters.demo_of("wine")
    assert (found.name, found.parameters) == ("wine-train", {})
    with pytest.raises(StackError, match=r"TRIALS=3: the flow has no such parameter; it takes reg"):
        parameters.demo_of("wine", None, None, None, 3)


def test_data_may_be_a_file_where_the_flow_takes_a_path(tmp_path: Path) -> None:
    file = tmp_path / "train_transaction.csv"
    with pytest.raises(StackError, match=f"no such file or folder: {file}"):
        parameters.demo_of("fraud", str(file))
    file.touch()
    assert parameters.demo_of("fraud", str(file)).parameters == {"data_path": str(file)}
    with pytest.raises(StackError, match=f"no such folder: {file}"):
        parameters.demo_of("taxi", str(file))


def test_a_pipeline_without_a_demo_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(StackError, match=r"flows/wines/ has the tag `demo`.*may be taxi, wine"):
        parameters.demo_of("wines")
