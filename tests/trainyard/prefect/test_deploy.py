"""Deploying to a real Prefect server: prefect.yaml as it stands for different stacks, and what is
removed.
"""

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse

from tests.conftest import ROOT
from tests.trainyard.prefect.projects import Project
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from trainyard.prefect.deploy import declared, order_queues
from trainyard.prefect.register import register

pytestmark = pytest.mark.server

# Loads for the lint and for its name, and not again.
BREAKS = """
from pathlib import Path

from prefect import flow

with Path("loaded").open("a") as loads:
    loads.write("x")
if Path("loaded").stat().st_size > 2:
    raise SystemExit(7)

@flow
def report(): ...
"""


@pytest.fixture
def laptop(prefect_server: str) -> StackOutputs:
    outputs = StackOutputs(
        stack="laptop",
        prefect_api_url=prefect_server,
        tracking_uri="http://127.0.0.1:5000",
        artifact_store=f"/home/me/{uuid.uuid4().hex}",
        code_dir=str(ROOT),
        work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
    )
    register(outputs)
    return outputs


def deployed(outputs: StackOutputs) -> DeploymentResponse:
    environment = os.environ | deploy_environment(outputs, image="repo@sha256:abc")
    environment["PREFECT_API_URL"] = outputs.prefect_api_url
    command = [sys.executable, "-m", "trainyard.prefect.deploy"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name("taxi-train/taxi-train")


def test_a_stack_decides_whether_schedules_start_runs_and_on_which_data(
    laptop: StackOutputs,
) -> None:
    for active, data in ((True, "synthetic"), (False, "tlc"), (True, "s3://lake/taxi/")):
        stack = laptop.model_copy(update={"active_schedules": active, "training_data": data})
        deployment = deployed(stack)
        assert [schedule.active for schedule in deployment.schedules] == [active]
        assert deployment.parameters["data"] == data


def test_the_pools_queues_have_the_order_of_the_file(laptop: StackOutputs) -> None:
    pool = laptop.work_pool.name
    for order in (["default", "ml-training"], ["urgent", "ml-training", "default"]):
        order_queues(pool, order)
        order_queues(pool, order)
        with get_client(sync_client=True) as client:
            queues = client.read_work_queues(work_pool_name=pool)
        assert [q.name for q in sorted(queues, key=lambda q: q.priority or 0)] == order


# --- prune ----------------------------------------------------------------------------------------
def test_what_a_file_declares_is_named_as_prefect_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIZE", "small")
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "deployments: [{name: 'daily-{{ $SIZE }}', entrypoint: 'flows.py:score',"
        " parameters: {x: '{{ $UNSET }}'}}]"
    )
    # Else all of its deployments would be taken for gone, and removed.
    with pytest.raises(ValueError, match="No such file"):
        declared(file)
    tmp_path.joinpath("flows.py").write_text(
        "from prefect import flow\n@flow(name='scoring')\ndef score(x=1): ..."
    )
    assert declared(file) == {"scoring/daily-small"}


def test_what_prefect_yaml_no_longer_has_is_removed_and_what_is_others_stays(
    project: Project,
) -> None:
    pool = project.outputs.work_pool.name
    project.make_by_hand("fit/tried")  # without the tag
    project.make_by_hand("fit/elsewhere", pool, pool=None)
    project.declare("load/monthly", "fit/monthly", "fit/weekly")
    code, said = project.deploy()
    assert code == 0, said
    assert "Deployment 'fit/elsewhere' removed" in said
    project.declare("load/monthly", "fit/weekly")
    code, said = project.deploy()
    assert code == 0, said
    assert "Deployment 'fit/monthly' removed: prefect.yaml has it no longer" in said
    assert project.there() == {"load/monthly", "fit/weekly", "fit/tried"}


def test_a_deploy_that_stops_half_way_removes_nothing_and_says_so(project: Project) -> None:
    pool = project.outputs.work_pool.name
    project.make_by_hand("fit/gone", pool)
    project.declare("load/monthly", "fit/monthly", "report/monthly", "load/weekly")
    file = project.folder / "prefect.yaml"
    file.write_text(file.read_text().replace("flows.py:report", "report.py:report"))
    (project.folder / "report.py").write_text(BREAKS)
    code, said = project.deploy()
    assert code == 7, said
    assert "removed" not in said
    assert project.there() == {"load/monthly", "fit/monthly", "fit/gone"}


# --- Prefect holds what the file says -------------------------------------------------------------
CRON: dict[str, Any] = {"cron": "0 6 * * *", "timezone": "UTC", "active": True}
HOURLY: dict[str, Any] = {"interval": 3600, "timezone": "UTC", "active": False}
FULL: dict[str, Any] = {
    "description": "Everything that can be said.",
    "version": "7",
    "tags": ["{{ $TRAINYARD_WORK_POOL }}", "more"],
    "parameters": {"rows": 5},
    "concurrency_limit": {"limit": 2, "collision_strategy": "CANCEL_NEW"},
    "enforce_parameter_schema": False,
    "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "/elsewhere"}}],
    "work_pool": {
        "name": "{{ $TRAINYARD_WORK_POOL }}",
        "work_queue_name": "urgent",
        "job_variables": {"image": "{{ $TRAINYARD_IMAGE }}", "env": {"A": "b"}},
    },
    "schedules": [
        HOURLY | {"slug": "hourly"},
        CRON | {"slug": "daily", "parameters": {"rows": 9}},
    ],
    "triggers": [{"enabled": True, "match": {"prefect.resource.id": "x"}, "expect": ["y"]}],
}
BARE: dict[str, Any] = {
    "tags": ["{{ $TRAINYARD_WORK_POOL }}"],
    "work_pool": {
        "name": "{{ $TRAINYARD_WORK_POOL }}",
        "job_variables": {"image": "{{ $TRAINYARD_IMAGE }}"},
    },
}
# Each after the one before it, with the slugs that Prefect must have then.
SCHEDULES: list[tuple[list[dict[str, Any]], list[str | None]]] = [
    ([HOURLY | {"slug": "stays"}, CRON | {"slug": "old"}], ["old", "stays"]),
    ([HOURLY | {"slug": "stays"}, CRON | {"slug": "new"}], ["new", "stays"]),
    ([HOURLY, CRON], [None, None]),
    ([CRON], [None]),
    ([CRON | {"slug": "daily"}], ["daily"]),
    ([], []),
]


def test_a_deployment_has_the_schedules_that_the_file_has(project: Project) -> None:
    for schedules, slugs in SCHEDULES:
        project.write(FULL | {"schedules": schedules})
        code, said = project.deploy()
        assert code == 0, said
        assert [each["slug"] for each in project.holds()["schedules"]] == slugs


def test_what_is_deployed_again_is_as_if_it_were_the_first_time(project: Project) -> None:
    ids = set()
    for deployment in (FULL, BARE):
        project.write(deployment)
        code, said = project.deploy()
        assert code == 0, said
        ids.add(project.client.read_deployment_by_name("fit/all").id)
    assert len(ids) == 1, "its runs, and what starts it by its id, belong to another one"
    again = project.holds()
    project.forget()
    project.deploy()
    assert again == project.holds()


def test_a_removed_deployment_takes_its_automations_with_it(project: Project) -> None:
    project.write(FULL)
    project.deploy()
    owner = f"prefect.deployment.{project.client.read_deployment_by_name('fit/all').id}"
    assert project.client.read_resource_related_automations(owner)
    project.declare("load/monthly")
    assert "Deployment 'fit/all' removed" in project.deploy()[1]
    assert not project.client.read_resource_related_automations(owner)
