"""`trainyard backfill`: a deployment's runs for many months, on a real Prefect server."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled
from prefect.types._datetime import now
from prefect.utilities.callables import parameter_schema
from pydantic import Field

from tests.conftest import ROOT
from tests.trainyard.prefect.projects import Project
from trainyard.laptop import commands
from trainyard.prefect import __main__ as deployer
from trainyard.prefect import backfill as module
from trainyard.prefect.automations import RECOVERING
from trainyard.prefect.backfill import TAG, run_backfill
from trainyard.prefect.backfill_plan import BackfillError
from trainyard.prefect.backfill_request import MAX_MONTHS, Backfill
from trainyard.tools.errors import StackError

pytestmark = pytest.mark.server

FLOWS = """
from pathlib import Path

from prefect import flow

@flow
def score(month: str = ""):
    "Score a month."
    if Path(__file__).with_name(f"without-{month}").exists():
        raise ValueError(f"no trips of {month}\\nfetch them again")
"""


@dataclass
class Deployment:
    """A deployment whose runs the test itself brings to their end, in place of a worker."""

    client: SyncPrefectClient
    api_url: str
    name: str
    id: uuid.UUID
    fails: set[str] = field(default_factory=set)
    """Months."""
    most: int = 0
    """How many runs there were at a time."""

    def runs(self) -> list[FlowRun]:
        mine = FlowRunFilter.model_validate({"deployment_id": {"any_": [self.id]}})
        return self.client.read_flow_runs(flow_run_filter=mine)

    def states(self) -> list[tuple[str, str]]:
        return sorted((run.parameters["month"], str(run.state_name)) for run in self.runs())

    def make(self, state: Any, **parameters: Any) -> FlowRun:
        """A run that somebody else has made."""
        run = self.client.create_flow_run_from_deployment(self.id, parameters=parameters)
        self.client.set_flow_run_state(run.id, state, force=True)
        return run

    def work(self) -> None:
        """Bring the runs that have begun one state further, as a worker would."""
        begun = [run for run in self.runs() if run.state and not run.state.is_final()]
        begun = [run for run in begun if TAG in run.tags or not run.state.is_scheduled()]
        self.most = max(self.most, len(begun))
        for run in begun:
            bad = run.parameters["month"] in self.fails
            end = Failed(message="no trips\nfetch them") if bad else Completed()
            at_work = run.state and run.state.is_running()
            self.client.set_flow_run_state(run.id, end if at_work else Running(), force=True)

    def backfill(self, months: str, *parameters: str, **more: Any) -> int:
        """The command, whose runs go one state further at each look."""
        options = {key: more.pop(key) for key in ("parallel", "again") if key in more}
        wanted = request(self.name, months, parameters=parameters, **options)
        return run_backfill(self.api_url, wanted, **{"check": self.work, "poll": 0, **more})


Month = Annotated[str, Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$")]
Make = Callable[..., Deployment]


def monthly(month: Month | None = None, rows: int = 1, data: str = "x") -> None: ...


@pytest.fixture
def deployment(client: SyncPrefectClient, prefect_server: str) -> Make:
    """Makes one, which has the concurrency limit that is given."""

    def make(
        limit: int | None = None, flow_of: Callable[..., None] = monthly, **own: Any
    ) -> Deployment:
        score = flow(flow_of, name=f"score-{uuid.uuid4().hex[:8]}")
        made = client.create_deployment(
            client.create_flow(score),
            name="monthly",
            parameters=own,
            parameter_openapi_schema=parameter_schema(score).model_dump(),
            enforce_parameter_schema=True,
            tags=["own"],
            concurrency_limit=limit,
        )
        return Deployment(client, prefect_server, f"{score.name}/monthly", made)

    return make


def table(printed: str) -> list[list[str]]:
    """Month and state of each row, and the last line."""
    rows = printed[printed.index("month    state") :].splitlines()
    return [row.split()[:2] for row in rows[1:-1]]


def request(deployment: str, months: str = "2023-01..2023-02", **more: Any) -> Backfill:
    return Backfill(deployment=deployment, months=months, **more)


# --- what runs ------------------------------------------------------------------------------------
@pytest.fixture
def worker(project: Project) -> Iterator[Project]:
    """A project whose runs are processes, as on a laptop."""
    (project.folder / "flows.py").write_text(FLOWS)
    project.declare(f"score/monthly-{project.outputs.work_pool.name}")
    code, said = project.deploy()
    assert code == 0, said
    command = ["worker", "start", "--type", "process", "--pool", project.outputs.work_pool.name]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_API_URL": project.outputs.prefect_api_url,
        "PREFECT_HOME": str(project.folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    with (project.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env=environment,
            cwd=project.folder,
            stdout=log,
            stderr=log,
        )
    yield project
    process.kill()
    process.wait()


def test_one_month_fails_the_others_run_and_the_same_command_tries_that_one_again(
    worker: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    url = worker.outputs.prefect_api_url
    months = request(f"monthly-{worker.outputs.work_pool.name}", "2022-12..2023-02")
    missing = worker.folder / "without-2023-01"
    missing.touch()
    assert run_backfill(url, months, poll=0.2) == 1, (worker.folder / "worker.log").read_text()
    said = capsys.readouterr().out
    assert "3 months, 2 at a time\n" in said
    assert table(said) == [
        ["2022-12", "Completed"],
        ["2023-01", "Failed"],
        ["2023-02", "Completed"],
    ]
    assert re.search(r"^2023-01  Failed +\d+  \S+  ValueError: no trips of 2023-01$", said, re.M)
    assert said.endswith("3 months: 2 Completed, 1 Failed\n")
    (run,) = re.findall(rf"^2022-12  begun: (\S+)  {url.removesuffix('/api')}/runs", said, re.M)

    missing.unlink()
    assert run_backfill(url, months, poll=0.2) == 0
    said = capsys.readouterr().out
    assert f"2022-12  skipped: it has completed as {run}  " in said
    assert table(said) == [["2022-12", "skipped"], ["2023-01", "Completed"], ["2023-02", "skipped"]]
    assert said.endswith("3 months: 2 skipped, 1 Completed\n")


# --- what is there already ------------------------------------------------------------------------
def test_what_has_completed_with_the_same_parameters_is_skipped(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment(data="tlc")
    score.make(Completed(), month="2023-01")
    score.make(Completed(), month="2023-02", data="x")
    score.make(Failed(), month="2023-03")
    score.make(Cancelled(), month="2023-03")
    assert score.backfill("2023-01..2023-03") == 0
    assert table(capsys.readouterr().out) == [
        ["2023-01", "skipped"],
        ["2023-02", "Completed"],
        ["2023-03", "Completed"],
    ]
    made = [run for run in score.runs() if TAG in run.tags]
    assert sorted(run.parameters["month"] for run in made) == ["2023-02", "2023-03"]
    assert {run.parameters["data"] for run in made} == {"tlc"}
    assert all("own" in run.tags for run in made)


def test_again_runs_what_has_completed_and_other_parameters_are_other_runs(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    for parameters, again, runs in (
        ((), False, 1),
        (("rows=2", "data=2023-01"), False, 2),
        (("rows=2", "data=2023-01"), False, 2),
        (("rows=2", "data=2023-01"), True, 3),
        (("rows=2", "data=2023-01"), True, 4),
    ):
        assert score.backfill("2023-01..2023-01", *parameters, again=again) == 0
        assert len(score.runs()) == runs
    with_more = {"month": "2023-01", "rows": 2, "data": "2023-01"}
    assert [run.parameters for run in score.runs()].count(with_more) == 3


def test_all_pages_of_runs_are_read(
    deployment: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    for month in range(1, 6):
        score.make(Completed(), month=f"2023-0{month}")
    whole = SyncPrefectClient.read_flow_runs
    monkeypatch.setattr(
        SyncPrefectClient, "read_flow_runs", lambda *given, **more: whole(*given, **more, limit=2)
    )
    assert score.backfill("2023-01..2023-05", check=lambda: pytest.fail("something runs")) == 0
    assert capsys.readouterr().out.endswith("5 months: 5 skipped\n")


def test_what_is_under_way_is_waited_for_and_not_doubled(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    run = score.make(Running(), month="2023-01")
    score.make(Scheduled(scheduled_time=now("UTC") + timedelta(days=7)), month="2023-02")
    assert score.backfill("2023-01..2023-02", again=True) == 0
    assert f"2023-01  under way already: {run.name}" in capsys.readouterr().out
    assert score.states() == [
        ("2023-01", "Completed"),
        ("2023-02", "Completed"),
        ("2023-02", "Scheduled"),  # next week's is nobody's to wait for
    ]


def test_two_backfills_at_once_make_one_run_a_month(deployment: Make) -> None:
    score = deployment()
    second = list[int]()

    def meanwhile() -> None:
        if not second:
            second.append(0)
            second[0] = score.backfill("2023-01..2023-02", parallel=1)
        score.work()

    assert score.backfill("2023-01..2023-02", parallel=1, check=meanwhile) == 0
    assert second == [0]
    assert score.states() == [("2023-01", "Completed"), ("2023-02", "Completed")]


# --- how many at a time ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limit", "parallel", "most"), [(None, 2, 2), (None, 3, 3), (1, 2, 1), (5, 2, 2)]
)
def test_no_more_runs_than_asked_for_nor_than_the_deployments_limit(
    limit: int | None,
    parallel: int,
    most: int,
    deployment: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = deployment(limit)
    assert score.backfill("2023-01..2023-05", parallel=parallel) == 0
    assert score.most == most
    said = capsys.readouterr().out.splitlines()[0]
    why = ", the deployment's limit in prefect.yaml" if most < parallel else ""
    assert said == f"{score.name}: 5 months, {most} at a time{why}"


def test_another_run_of_a_limited_deployment_is_waited_for(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment(1)
    other = score.make(Running())

    looks = iter(range(9))

    def check() -> None:
        if next(looks) < 3:
            assert len(score.runs()) == 1
        elif len(score.runs()) == 1:
            score.client.set_flow_run_state(other.id, Completed(), force=True)
        else:
            score.work()

    assert score.backfill("2023-01..2023-01", check=check) == 0
    assert (
        capsys.readouterr().out.count(f"waiting: the deployment's place is taken by {other.name}")
        == 1
    )


# --- how runs end ---------------------------------------------------------------------------------
def test_every_end_that_isnt_completed_has_its_reason_and_the_others_run(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    score.fails = {"2023-02"}
    cancelled = list[FlowRun]()

    def check() -> None:
        score.work()
        runs = [run for run in score.runs() if run.parameters["month"] == "2023-01"]
        if runs and not cancelled:
            cancelled.extend(runs)
            stop = Cancelled(message="by hand")
            score.client.set_flow_run_state(runs[0].id, stop, force=True)
        for run in score.runs():
            if run.parameters["month"] == "2023-03":
                score.client.delete_flow_run(run.id)

    assert score.backfill("2023-01..2023-04", check=check) == 1
    said = capsys.readouterr().out
    assert table(said) == [
        ["2023-01", "Cancelled"],
        ["2023-02", "Failed"],
        ["2023-03", "deleted"],
        ["2023-04", "Completed"],
    ]
    assert re.search(r"^2023-01  Cancelled +\d+  \S+  by hand$", said, re.M)
    assert re.search(r"^2023-02  Failed +\d+  \S+  no trips$", said, re.M)
    assert "somebody has deleted the run" in said
    assert "fetch them" not in said


def test_a_run_may_call_its_completion_otherwise(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()

    def check() -> None:
        for run in score.runs():
            state = Completed(name="NothingNew")
            score.client.set_flow_run_state(run.id, state, force=True)

    assert score.backfill("2023-01..2023-01", check=check) == 0
    assert table(capsys.readouterr().out) == [["2023-01", "NothingNew"]]


def test_a_crashed_run_may_start_again_for_a_while(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    recovering = score.make(Crashed(name=RECOVERING, message="its machine"), month="2023-01")
    looks = iter(range(99))

    def check() -> None:
        if next(looks) == 3:
            score.client.set_flow_run_state(recovering.id, Running(), force=True)
        score.work()

    assert score.backfill("2023-01..2023-01", check=check) == 0
    assert score.states() == [("2023-01", "Completed")]

    score.make(Crashed(name=RECOVERING, message="its machine\nis gone"), month="2023-02")
    assert score.backfill("2023-02..2023-02", recovery=0.05) == 1
    assert re.search(r"^2023-02  Recovering .* its machine$", capsys.readouterr().out, re.M)


def test_while_prefect_is_away_it_is_asked_again(
    deployment: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    whole, fails = SyncPrefectClient.read_flow_runs, iter([2, 3, 5])
    monkeypatch.setattr(module, "POLL", 0)

    def away(*given: Any, **more: Any) -> Any:
        if next(fails, 0):
            raise httpx.ConnectError("refused")
        return whole(*given, **more)

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", away)
    assert score.backfill("2023-01..2023-01") == 0
    assert capsys.readouterr().out.count("Prefect doesn't answer; it is asked again for 180 s") == 1

    monkeypatch.setattr(module, "PATIENCE", 0)
    fails = iter([1])
    with pytest.raises(BackfillError, match=r"Prefect answers no more.*The same command goes on"):
        score.backfill("2023-02..2023-02")


# --- what ends the command ------------------------------------------------------------------------
BEGIN = """
import os, sys
from types import SimpleNamespace
from trainyard.prefect.backfill_request import Backfill
request = Backfill(deployment=sys.argv[2], months="2023-01..2023-05")
outputs = SimpleNamespace(prefect_api_url=sys.argv[1])
"""
LAPTOP = """
from trainyard.laptop import commands
commands.Stack = lambda: SimpleNamespace(
    environment=lambda: dict(os.environ), outputs=lambda: outputs, check_alive=lambda: None
)
sys.exit(commands.run(lambda stack: commands.backfill(stack, request)))
"""
DEPLOYER = """
from trainyard.prefect import __main__ as deployer
deployer.read_outputs = lambda parameter: outputs
sys.argv = ["deployer", "/trainyard/dev/outputs", "--backfill", request.model_dump_json()]
sys.exit(deployer.main())
"""


@pytest.mark.parametrize(
    ("command", "number"),
    # ECS ends a task by the latter
    [(LAPTOP, signal.SIGINT), (DEPLOYER, signal.SIGTERM)],
    ids=["laptop", "deployer"],
)
def test_ctrl_c_leaves_what_is_done_and_begins_nothing_more(
    command: str,
    number: signal.Signals,
    deployment: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = deployment()
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + command, score.api_url, score.name],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}"},
            stdout=said,
            stderr=said,
        )
        try:
            while sum(state == "Completed" for _, state in score.states()) < 2:
                assert process.poll() is None, (tmp_path / "said").read_text()
                score.work()
                time.sleep(0.1)
            while len(score.runs()) < 4:
                time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(30) == 128 + number
        finally:
            process.kill()
    printed = (tmp_path / "said").read_text()
    left = [run for run in score.runs() if not run.state.is_final()]  # type: ignore[union-attr]
    names = ", ".join(run.name for run in sorted(left, key=lambda run: run.parameters["month"]))
    assert f"stopped: nothing more is begun; 2 runs under way: {names}. The same" in printed
    assert table(printed.partition("\nstopped")[0] + "\n") == [
        ["2023-01", "Completed"],
        ["2023-02", "Completed"],
        ["2023-03", "under"],
        ["2023-04", "under"],
        ["2023-05", "not"],
    ]
    assert len(score.runs()) == 4

    assert score.backfill("2023-01..2023-05") == 0
    assert score.states() == [(f"2023-0{month}", "Completed") for month in range(1, 6)]
    assert capsys.readouterr().out.endswith("5 months: 3 Completed, 2 skipped\n")


def test_a_stack_that_dies_ends_it_with_the_table_so_far(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()

    def check() -> None:
        if len(score.runs()) == 2:
            raise StackError("the worker has died")

    with pytest.raises(StackError, match="the worker has died"):
        score.backfill("2023-01..2023-03", check=check)
    assert capsys.readouterr().out.endswith("3 months: 2 under way, 1 not begun\n")


# --- what is refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("months", "told"),
    [
        ("2023-01", "write FIRST..LAST, such as 2023-01..2023-06"),
        ("2023-01..2023-02..2023-03", "write FIRST..LAST"),
        ("2023-1..2023-13", "'2023-1' and '2023-13' isn't YYYY-MM"),
        ("2023-02..2023-01", "the last one is before the first"),
        ("1999-01..2023-01", f"289 months; one backfill takes {MAX_MONTHS}"),
    ],
)
def test_months_that_are_none_are_refused(months: str, told: str) -> None:
    (fault,) = request("score/monthly", months).faults()
    assert fault.startswith(f"months {months!r}" if "write" in told else f"months {months}")
    assert told in fault


def test_a_range_goes_over_the_turn_of_the_year_and_may_be_one_month() -> None:
    assert request("a/b", "2022-12..2023-01").every_month() == ["2022-12", "2023-01"]
    assert request("a/b", "2023-12..2023-12").every_month() == ["2023-12"]


def test_all_that_is_wrong_is_told_at_once_and_nothing_runs(deployment: Make) -> None:
    score = deployment()
    wrong = ("rows=many", "data=2023", "rows", "colour=red", "month=2023-01")
    with pytest.raises(BackfillError) as refused:
        score.backfill("1999-11..2000-01", *wrong, parallel=0)
    assert str(refused.value).split("\n  ") == [
        "-p rows: write NAME=VALUE",
        "-p rows=: it is given 2 times",
        "-p month=: the range gives the months",
        "--parallel 0: at least 1",
        "-p colour=: the flow has no such parameter; it takes month, rows, data",
        "-p rows=: 'many' is not of type 'integer'",
        "-p data=: 2023 is not of type 'string'; as text it is 'data=\"2023\"'",
        "1999-11 (and 1 more): '1999-11' does not match '^20\\\\d\\\\d-(0[1-9]|1[0-2])$'",
    ]
    for no_number in ("NaN", "1e999"):
        with pytest.raises(BackfillError) as refused:
            score.backfill("2023-01..2023-02", "rows=many", f"data={no_number}")
        assert str(refused.value) == "-p rows=: 'many' is not of type 'integer'"
    with pytest.raises(BackfillError, match="300 months"):
        score.backfill("2001-01..2025-12")
    assert score.runs() == []


def test_a_flow_without_a_month_is_refused(deployment: Make) -> None:
    with pytest.raises(BackfillError, match=r"has no parameter `month`.*; it takes rows$"):
        deployment(flow_of=lambda rows=1: None).backfill("2023-01..2023-01")


def test_a_deployment_that_lets_nothing_run_is_refused(deployment: Make) -> None:
    score = deployment(1)
    limit = score.client.read_deployment(score.id).global_concurrency_limit
    assert limit
    score.client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(limit=0))
    with pytest.raises(BackfillError, match="concurrency limit 0"):
        score.backfill("2023-01..2023-01")


def test_an_unknown_deployment_is_told_the_nearest(deployment: Make) -> None:
    score = deployment()
    with pytest.raises(BackfillError, match=f"did you mean .*{score.name}"):
        run_backfill(score.api_url, request(score.name.replace("monthly", "montly")))


def test_a_deployments_own_name_is_enough_where_no_other_has_it(deployment: Make) -> None:
    score, other = deployment(), deployment()
    with pytest.raises(BackfillError, match=f"did you mean .*{score.name}"):
        run_backfill(score.api_url, request("monthly"))
    assert other.runs() == []


def test_what_prefect_refuses_meanwhile_is_told_with_the_table_so_far(
    deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()

    def check() -> None:
        score.work()
        if ("2023-01", "Completed") in score.states():
            score.client.delete_deployment(score.id)

    with pytest.raises(BackfillError, match=r"Prefect refuses \(404\).*Deployment not found"):
        score.backfill("2023-01..2023-02", parallel=1, check=check)
    assert capsys.readouterr().out.endswith("2 months: 1 Completed, 1 not begun\n")


# --- from inside a stack --------------------------------------------------------------------------
def test_the_deployer_runs_it_and_says_what_is_refused(
    deployment: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = deployment()
    score.make(Completed(), month="2023-01")
    outputs = SimpleNamespace(prefect_api_url=score.api_url)
    monkeypatch.setattr(deployer, "read_outputs", lambda parameter: outputs)

    def typed(wanted: Backfill) -> int:
        arguments = ["deployer", "/trainyard/dev/outputs", "--backfill", wanted.model_dump_json()]
        monkeypatch.setattr("sys.argv", arguments)
        return deployer.main()

    assert typed(request(score.name, "2023-01..2023-01")) == 0
    assert capsys.readouterr().out.endswith("1 month: 1 skipped\n")
    assert typed(request(score.name, "2023-01")) == 1
    assert "write FIRST..LAST" in capsys.readouterr().err


def test_on_a_laptop_a_refusal_is_the_commands_own_error(deployment: Make) -> None:
    score = deployment()
    stack: Any = SimpleNamespace(
        outputs=lambda: SimpleNamespace(prefect_api_url=score.api_url), check_alive=lambda: None
    )
    with pytest.raises(StackError, match=r"write FIRST\.\.LAST"):
        commands.backfill(stack, request(score.name, "2023-01"))
