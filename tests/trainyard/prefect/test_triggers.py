"""The triggers of prefect.yaml, on a real Prefect server: what an event starts, and how often."""

import time
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from flows.platform.events import drift_detected
from flows.taxi.spec import SPEC
from tests.conftest import ROOT
from tests.trainyard.prefect.projects import Project
from tests.trainyard.prefect.test_deploy import BARE
from trainyard.prefect.automations import DRIFT_MEMORY

pytestmark = pytest.mark.server

DATA = "s3://lake/taxi of 2023/"
FLOWS = """
from prefect import flow

@flow
def fit(
    data: str = "tlc",
    train_month: str | None = None,
    one_month: bool = False,
    max_rmse_valid: float = 6.5,
): ...
"""


def trigger() -> dict[str, Any]:
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = next(each for each in listed if each["name"] == "taxi-train")["triggers"]
    return dict(found)


class Listening:
    """A deployment that has the trigger of `taxi-train`."""

    def __init__(self, project: Project) -> None:
        self.project, self.name = project, f"drifting-{uuid4().hex[:8]}"
        (project.folder / "flows.py").write_text(FLOWS)

    def deploy(self, *triggers: dict[str, Any]) -> None:
        self.project.write(BARE | {"name": self.name, "triggers": list(triggers) or [trigger()]})
        code, said = self.project.deploy()
        assert code == 0, said

    @property
    def id(self) -> UUID:
        return self.project.client.read_deployment_by_name(f"fit/{self.name}").id

    def runs(self) -> list[FlowRun]:
        wanted = FlowRunFilter.model_validate({"deployment_id": {"any_": [self.id]}})
        return self.project.client.read_flow_runs(flow_run_filter=wanted)

    def months(self, last: str, before: int = 0) -> list[str]:
        """The months that runs are of, once there are the last one's and so many others."""
        drift(last)
        end = time.monotonic() + 180  # a busy machine's server takes its time
        # it starts the runs of two events in any order
        while last not in (months := [run.parameters["train_month"] for run in self.runs()]) or (
            len(months) <= before
        ):
            assert time.monotonic() < end, f"no run of {last}; there are {months}"
            time.sleep(0.3)
        return sorted(months)

    def automations(self) -> list[UUID]:
        owner = f"prefect.deployment.{self.id}"
        return [each.id for each in self.project.client.read_resource_related_automations(owner)]


def drift(month: str, version: str = "7", model: str = SPEC.name) -> None:
    drift_detected(model, month, version, "trips are longer", DATA)


@pytest.fixture
def listening(project: Project) -> Listening:
    return Listening(project)


def test_drift_starts_a_run_on_the_month_that_drifted_and_on_its_data(listening: Listening) -> None:
    listening.deploy()
    assert listening.months(last="2023-02") == ["2023-02"]
    (run,) = listening.runs()
    given = {"data": DATA, "train_month": "2023-02", "one_month": True, "max_rmse_valid": 10}
    assert run.parameters == given


def test_it_starts_one_run_for_each_month_and_version_of_its_model_and_after_a_deploy_too(
    listening: Listening,
) -> None:
    listening.deploy()
    for _ in range(3):
        drift("2023-02")
    drift("2023-02", model="wine-cultivar")
    assert listening.months("2023-03", before=1) == ["2023-02", "2023-03"]
    listening.deploy()
    drift("2023-02")
    drift("2023-02", version="8")
    months = ["2023-02", "2023-02", "2023-03", "2023-04"]
    assert listening.months("2023-04", before=3) == months


def test_a_trigger_that_has_changed_is_a_new_one_and_one_that_has_not_stays(
    listening: Listening,
) -> None:
    listening.deploy()
    first = listening.automations()
    listening.deploy()
    assert listening.automations() == first
    changed = trigger() | {"parameters": {"train_month": "{{ event.payload.version }}"}}
    listening.deploy(changed, trigger() | {"name": "another", "enabled": False})
    assert len(listening.automations()) == 2
    assert not {*listening.automations()} & {*first}
    listening.deploy()
    assert len(listening.automations()) == 1


def test_what_is_told_is_remembered_as_long_as_what_starts_runs() -> None:
    assert trigger()["within"] == DRIFT_MEMORY
