"""StackOutputs -> work pool, variables, result storage and limits, on a real Prefect server."""

import asyncio
import uuid

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.events import Automation, EventTrigger, ResourceSpecification
from prefect.filesystems import LocalFileSystem
from prefect.utilities.schema_tools import validate
from prefect.workers.process import ProcessJobConfiguration
from prefect_aws import AwsCredentials, S3Bucket

from tests.conftest import ROOT
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs
from trainyard.prefect.automations import SETTLE, SILENCE, automations
from trainyard.prefect.register import CONCURRENCY_LIMITS, Change, RegisterError, register, summary
from trainyard.prefect.work_pool import base_job_template

pytestmark = pytest.mark.server


@pytest.fixture
def outputs(prefect_server: str) -> StackOutputs:
    """A stack whose work pool isn't there yet."""
    return StackOutputs(
        stack="laptop",
        prefect_api_url=prefect_server,
        tracking_uri="http://127.0.0.1:5000",
        artifact_store=f"/home/me/{uuid.uuid4().hex}",
        code_dir="/home/me/a clone",
        work_pool=ProcessWorkPool(name=f"pool-{uuid.uuid4().hex[:8]}"),
    )


def results(outputs: StackOutputs) -> dict[str, str]:
    return {change.name: change.result for change in register(outputs)}


def automation_names(outputs: StackOutputs) -> list[str]:
    return [each.name for each in automations(outputs.work_pool.name, notify=None)]


def automations_there(outputs: StackOutputs) -> dict[str, Automation]:
    """What Prefect has for the pool, whoever made it."""
    with get_client(sync_client=True) as client:
        found = client.read_automations()
    return {each.name: each for each in found if outputs.work_pool.name in each.name}


def job_template(outputs: StackOutputs) -> dict[str, object]:
    with get_client(sync_client=True) as client:
        return client.read_work_pool(outputs.work_pool.name).base_job_template


def test_a_second_run_changes_nothing_and_says_so(outputs: StackOutputs) -> None:
    assert results(outputs)[outputs.work_pool.name] == "created"
    changes = register(outputs)
    assert {change.result for change in changes} == {"unchanged", "not set"}
    assert summary(changes) == "nothing to change"
    assert [change.name for change in changes] == [
        "trainyard-results",
        *CONCURRENCY_LIMITS,
        "TRAINYARD_NOTIFY_WEBHOOK",
        *automation_names(outputs),
        outputs.work_pool.name,
    ]


def test_only_what_differs_is_updated(outputs: StackOutputs) -> None:
    register(outputs)
    moved = outputs.model_copy(update={"tracking_uri": "http://127.0.0.1:5999"})
    assert results(moved) == {
        "trainyard-results": "unchanged",
        **dict.fromkeys(CONCURRENCY_LIMITS, "unchanged"),
        "TRAINYARD_NOTIFY_WEBHOOK": "not set",
        **dict.fromkeys(automation_names(outputs), "unchanged"),
        outputs.work_pool.name: "updated",  # runs find MLflow by it
    }


def test_what_somebody_changed_by_hand_is_put_right(outputs: StackOutputs) -> None:
    register(outputs)
    LocalFileSystem(basepath="/somewhere/else").save("trainyard-results", overwrite=True)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("tlc-downloads", 50)
    found = results(outputs)
    assert found["trainyard-results"] == "updated"
    assert found["tlc-downloads"] == "updated"
    assert summary(register(outputs)) == "nothing to change"
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("tlc-downloads").limit == 2


def test_results_are_kept_in_the_artifact_store(outputs: StackOutputs) -> None:
    register(outputs)
    block = LocalFileSystem.load("trainyard-results")
    assert block.basepath == f"{outputs.artifact_store}/results"


def test_on_aws_results_are_kept_in_the_bucket_and_no_credential_in_prefect(
    outputs: StackOutputs,
) -> None:
    on_aws = outputs.model_copy(update={"artifact_store": "s3://a-bucket/flows"})
    assert results(on_aws)["trainyard-results"] in ("created", "updated")
    block = S3Bucket.load("trainyard-results")
    assert (block.bucket_name, block.bucket_folder) == ("a-bucket", "flows/results")
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name("trainyard-results", "s3-bucket")
        assert document.data["credentials"]["aws_secret_access_key"] is None
        assert document.data["credentials"]["aws_access_key_id"] is None
    assert results(on_aws)["trainyard-results"] == "unchanged"


def test_credentials_that_somebody_put_into_the_result_storage_are_removed(
    outputs: StackOutputs,
) -> None:
    on_aws = outputs.model_copy(update={"artifact_store": "s3://a-bucket/flows"})
    register(on_aws)
    S3Bucket(
        bucket_name="a-bucket",
        bucket_folder="flows/results",
        credentials=AwsCredentials(aws_access_key_id="AK", aws_secret_access_key="SK"),  # noqa: S106
    ).save("trainyard-results", overwrite=True)
    assert results(on_aws)["trainyard-results"] == "updated"
    assert S3Bucket.load("trainyard-results").credentials.aws_secret_access_key is None


def test_a_run_gets_the_code_the_stores_and_its_own_variables(
    outputs: StackOutputs,
) -> None:
    register(outputs)
    job = asyncio.run(
        ProcessJobConfiguration.from_template_and_values(
            job_template(outputs), {"env": {"MINE": "1"}, "image": "repo@sha256:abc"}
        )
    )
    assert job.command == "python -m prefect.engine"
    assert job.env == {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "local-file-system/trainyard-results",
        "PYTHONPATH": "/home/me/a clone",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "TRAINYARD_ARTIFACT_STORE": outputs.artifact_store,
        "MINE": "1",
    }


def test_a_laptops_pool_takes_every_size_and_makes_nothing_of_it(outputs: StackOutputs) -> None:
    register(outputs)
    template = job_template(outputs)
    variables = template["variables"]
    assert isinstance(variables, dict)
    definitions = yaml.safe_load((ROOT / "prefect.yaml").read_text())["definitions"]
    jobs = []
    for size in ("small", "large", "spot"):
        values = definitions[size]["job_variables"]
        validate(values, variables, raise_on_error=True)
        job = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, values))
        jobs.append(job.model_dump())
    assert jobs[0] == jobs[1] == jobs[2]


def test_a_pool_of_another_type_is_not_overwritten(outputs: StackOutputs) -> None:
    httpx.post(
        f"{outputs.prefect_api_url}/work_pools/",
        json={"name": outputs.work_pool.name, "type": "kubernetes"},
    ).raise_for_status()
    with pytest.raises(RegisterError, match=r"type 'kubernetes'.*work-pool delete"):
        register(outputs)


def test_automations_that_somebody_changed_or_copied_are_put_right(outputs: StackOutputs) -> None:
    register(outputs)
    name, other, *_ = automation_names(outputs)
    with get_client(sync_client=True) as client:
        client.pause_automation(automations_there(outputs)[name].id)
        client.delete_automation(automations_there(outputs)[other].id)
        # as of two registers at once
        owner = f"trainyard.work-pool.{outputs.work_pool.name}"
        third = automations(outputs.work_pool.name, notify=None)[2]
        client.create_automation(third.model_copy(update={"owner_resource": owner}))
    changes = {(change.name, change.result) for change in register(outputs)}
    assert {(name, "updated"), (other, "created"), (third.name, "removed")} <= changes
    assert automations_there(outputs)[name].enabled
    with get_client(sync_client=True) as client:
        assert [a.name for a in client.read_automations()].count(third.name) == 1
    assert summary(register(outputs)) == "nothing to change"


def test_an_automation_that_left_the_code_is_removed_and_others_stay(
    outputs: StackOutputs,
) -> None:
    register(outputs)
    pool = outputs.work_pool.name
    mine = automations(pool, notify=None)[0]
    with get_client(sync_client=True) as client:
        for name, owner in (
            (f"{pool}: of old", f"trainyard.work-pool.{pool}"),
            (f"{pool}'s", None),
        ):
            client.create_automation(
                mine.model_copy(update={"name": name, "owner_resource": owner})
            )
    assert results(outputs)[f"{pool}: of old"] == "removed"
    assert set(automations_there(outputs)) == {*automation_names(outputs), f"{pool}'s"}
    assert summary(register(outputs)) == "nothing to change"


def test_only_runs_of_the_stacks_pool_are_crashed_or_started_again() -> None:
    for each in automations("the-pool", notify=uuid.uuid4()):
        assert isinstance(each.trigger, EventTrigger)
        related = each.trigger.match_related
        assert isinstance(related, ResourceSpecification)
        by_pool = {"prefect.resource.role": "work-pool", "prefect.resource.name": "the-pool"}
        by_tag = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.the-pool"}
        assert related.root in (by_pool, by_tag)


def test_a_run_is_silent_when_three_of_its_heartbeats_are_missing(outputs: StackOutputs) -> None:
    variables = base_job_template(outputs)["variables"]["properties"]
    beat = float(variables["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 3 * beat < SILENCE
    assert beat < SETTLE  # one that is alive has beaten by then
    assert SILENCE + SETTLE < 180


def test_without_a_webhook_automations_tell_nobody(outputs: StackOutputs) -> None:
    assert Change("notifications", "TRAINYARD_NOTIFY_WEBHOOK", "not set") in register(outputs)
    actions = [a.type for each in automations_there(outputs).values() for a in each.actions]
    assert set(actions) == {"change-flow-run-state"}


def test_a_webhook_is_told_and_its_address_kept_secret(
    outputs: StackOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_NOTIFY_WEBHOOK", "https://hooks.example.com/s3cret")
    try:
        assert "s3cret" not in str(register(outputs))
        with get_client(sync_client=True) as client:
            block = client.read_block_document_by_name(
                "trainyard-notifications", "custom-webhook", include_secrets=False
            )
        assert "s3cret" not in block.model_dump_json()
        told = [
            each.name
            for each in automations_there(outputs).values()
            if block.id in [getattr(action, "block_document_id", None) for action in each.actions]
        ]
        assert [name.split(": ")[1] for name in sorted(told)] == [
            "a crashed run is prepared to start again",
            "a run that crashes again and again is given up",
            "a run whose task has gone starts again",
            "people hear of a champion taken back",
            "people hear of a new champion",
            "people hear of a run on older data",
            "people hear of a run that failed",
            "people hear of a run that is late",
            "people hear of drift",
        ]
        assert summary(register(outputs)) == "nothing to change"
        monkeypatch.setenv("TRAINYARD_NOTIFY_WEBHOOK", "https://hooks.example.com/n3w")
        assert summary(register(outputs)) == "1 updated"
        # who registers without knowing the address doesn't silence the automations
        monkeypatch.delenv("TRAINYARD_NOTIFY_WEBHOOK")
        assert summary(register(outputs)) == "nothing to change"
    finally:
        with get_client(sync_client=True) as client:
            client.delete_block_document(block.id)


def test_a_server_that_refuses_is_quoted(outputs: StackOutputs) -> None:
    wrong = outputs.model_copy(update={"prefect_api_url": outputs.prefect_api_url + "/nowhere"})
    with pytest.raises(RegisterError, match=r"refuses POST /api/nowhere/.*: 404"):
        register(wrong)


def test_a_server_that_does_not_answer_is_named(outputs: StackOutputs) -> None:
    gone = outputs.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    with pytest.raises(RegisterError, match=r"no Prefect server answers at http://127\.0\.0\.1:9"):
        register(gone)
