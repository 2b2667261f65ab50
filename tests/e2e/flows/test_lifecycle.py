"""A model's life after training, as runs and commands: kept, promoted, taken back, reproduced."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_runs import resume_flow_run
from tenacity import Retrying, stop_after_delay, wait_fixed

from flows.benchmarks.runner import train_and_benchmark
from flows.lifecycle import tasks
from flows.lifecycle.__main__ import main
from flows.lifecycle.registry import recorded_lineage
from flows.lifecycle.rollback import rollback
from flows.wine import train as wine
from flows.wine.spec import SPEC
from flows.wine.train import wine_train
from tests.conftest import ROOT
from tests.e2e.flows.whole_runs import Place, artifacts, ended, paused, run

pytestmark = pytest.mark.server

NAME = SPEC.name
# a model that knows next to nothing
WORSE = 1e5


@pytest.fixture
def model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """`trainyard model ...`, as the tool starts it; gives the exit code and what it says."""

    def typed(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["model", *arguments])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return typed


def aliases(here: Place) -> dict[str, str]:
    found = here.client.get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def page_of(done: FlowRun) -> str:
    return str(artifacts(done.id)[f"{NAME}-card"].data)


def test_a_model_is_kept_promoted_taken_back_and_not_promoted_again(
    here: Place, model: Callable[..., tuple[int, str]]
) -> None:
    first = run(wine_train)
    assert ended(first) == ("Completed", "")
    assert page_of(first).startswith(f"# {NAME} version 1 is the new champion: the first one")
    assert aliases(here) == {"champion": "1"}

    worse = run(wine_train, regularization=WORSE)
    assert ended(worse) == ("Completed", "")
    assert f"# {NAME} version 2 is registered, kept champion v1: " in page_of(worse)
    assert aliases(here) == {"champion": "1", "challenger": "2"}

    code, said = model("promote", NAME)
    assert code == 1
    assert "kept champion v1" in said
    assert "`--force REASON` promotes it all the same" in said
    code, said = model("promote", f"{NAME}/2", "--force", "to see it")
    assert code == 0
    assert aliases(here) == {"champion": "2", "previous": "1"}
    code, said = model("rollback", f"{NAME}/1", "--reason", "a slip")
    assert code == 1
    assert (
        f"takes the champion back, which is version 2, and not 1: write `rollback {NAME}`" in said
    )
    assert aliases(here) == {"champion": "2", "previous": "1"}
    assert "promoted by a person: to see it" in model("card", NAME)[1]

    back = run(rollback, model=NAME, reason="it knows nothing")
    assert ended(back) == ("Completed", "")
    assert aliases(here) == {"champion": "1"}
    code, said = model("list", NAME)
    assert code == 0
    assert "taken back: it knows nothing" in said

    again = run(rollback, model=NAME, reason="once more")
    assert ended(again)[0] == "Failed"
    assert "can't be rolled back: no version was the champion before" in ended(again)[1]
    assert aliases(here) == {"champion": "1"}

    # the same model, trained anew by a schedule, against a champion that it would beat
    model("promote", f"{NAME}/2", "--force", "to be beaten")
    run(wine_train)
    assert aliases(here)["champion"] == "3"
    model("rollback", NAME, "--reason", "it smells")
    twin = run(wine_train)
    assert "it answers as version 3, which was taken back (it smells)" in page_of(twin)
    assert aliases(here)["champion"] == "2"


def test_a_version_is_trained_again_and_a_changed_byte_of_data_is_named(
    here: Place, model: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(wine_train, regularization=2.0)
    assert recorded_lineage(here.client, SPEC, "1").parameters["regularization"] == 2.0
    code, said = model("reproduce", NAME)
    assert code == 0, said
    assert f"{NAME} version 1 is reproduced: 31 predictions are the same" in said
    assert here.registered() == ["1"]

    read = wine.read_wines
    changed = read().with_columns(alcohol=pl.col("alcohol").replace(14.23, 14.24))
    monkeypatch.setattr(wine, "read_wines", lambda: changed)
    monkeypatch.setattr("flows.lifecycle.reproduce.load_flow_from_entrypoint", lambda _: wine_train)
    code, said = model("reproduce", NAME)
    assert code == 1
    assert f"{NAME} version 1 had other data: wine has the SHA-256 " in said


@pytest.mark.parametrize("answer", ["page", "command", "no"])
def test_a_run_that_asks_goes_on_by_a_click_or_a_command(
    here: Place, model: Callable[..., tuple[int, str]], answer: str
) -> None:
    with paused(wine_train, approval=True) as waiting:
        assert aliases(here) == {"challenger": "1"}
        if answer == "command":
            assert "its run has your yes" in model("promote", NAME)[1]
        else:
            resume_flow_run(waiting.id, run_input={"promote": answer == "page"})
    assert aliases(here) == ({"challenger": "1"} if answer == "no" else {"champion": "1"})


def test_a_run_that_nobody_answers_ends_well_and_promotes_nothing(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (wine_train.timeout_seconds or 0) > tasks.APPROVAL_TIMEOUT
    monkeypatch.setattr(tasks, "APPROVAL_TIMEOUT", 1)
    done = run(wine_train, approval=True)
    assert ended(done) == ("Completed", "")
    assert "nobody said yes within" in page_of(done)
    assert aliases(here) == {"challenger": "1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("card", "wines"), "there is no model 'wines'; there is none: train it first"),
        (("rollback", NAME, "--reason", "x"), f"there is no model '{NAME}'"),
        (("list",), "no model is registered yet"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    here: Place, model: Callable[..., tuple[int, str]], arguments: tuple[str, ...], said: str
) -> None:
    assert said in model(*arguments)[1]


def test_the_benchmarks_example_shows_metrics_and_metadata(here: Place) -> None:
    done = run(train_and_benchmark)
    assert ended(done) == ("Completed", "")
    page = str(artifacts(done.id)["benchmarks-report"].data)
    for benchmark in ("mae", "mse", "Model size (bytes)", "Inference time (s)"):
        assert f"| {benchmark} | " in page


def test_the_benchmarks_example_is_served_by_one_command(here: Place, prefect_server: str) -> None:
    environment = os.environ | {"PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.benchmarks.runner"]
    with (
        subprocess.Popen(command, env=environment, cwd=here.folder) as served,
        get_client(sync_client=True) as client,
    ):
        try:
            name = "train-and-benchmark/benchmark-runner"
            deployment = patiently(lambda: client.read_deployment_by_name(name))
            waiting = client.create_flow_run_from_deployment(deployment.id)
            patiently(lambda: artifacts(waiting.id)["benchmarks-report"])
        finally:
            served.terminate()


def patiently(look: Callable[[], Any]) -> Any:
    patient = Retrying(stop=stop_after_delay(90), wait=wait_fixed(1), reraise=True)
    return patient(look)


def test_a_benchmark_that_raises_fails_the_run(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.benchmarks.benchmark.mean_squared_error", None)
    done = run(train_and_benchmark)
    assert ended(done)[0] == "Failed"
    assert "BenchmarkError: benchmark mse failed" in ended(done)[1]
