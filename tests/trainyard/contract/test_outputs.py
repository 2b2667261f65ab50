"""The contract between infrastructure and flows."""

import pytest
from pydantic import ValidationError

from trainyard.contract.outputs import ProcessWorkPool, StackOutputs, deploy_environment

LAPTOP = StackOutputs(
    stack="laptop",
    prefect_api_url="http://127.0.0.1:4200/api",
    tracking_uri="http://127.0.0.1:5000",
    artifact_store="/home/me/a clone/.trainyard/artifacts",
    code_dir="/home/me/a clone",
    work_pool=ProcessWorkPool(name="trainyard"),
)


def test_outputs_survive_their_file() -> None:
    assert StackOutputs.model_validate_json(LAPTOP.model_dump_json()) == LAPTOP


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="artefact_store"):
        StackOutputs.model_validate(LAPTOP.model_dump() | {"artefact_store": "/home/me"})


@pytest.mark.parametrize("store", ["gs://bucket", "artifacts", ""])
def test_a_store_that_is_neither_a_folder_nor_a_bucket_is_refused(store: str) -> None:
    with pytest.raises(ValidationError, match="artifact_store"):
        StackOutputs.model_validate(LAPTOP.model_dump() | {"artifact_store": store})


def test_a_work_pool_name_that_breaks_ecs_families_is_refused() -> None:
    with pytest.raises(ValidationError, match="name"):
        ProcessWorkPool(name="my pool.v1")


def test_prefect_yaml_is_given_what_its_templates_may_use() -> None:
    assert deploy_environment(LAPTOP, image="repo@sha256:abc") == {
        "TRAINYARD_ACTIVE_SCHEDULES": "true",
        "TRAINYARD_CODE_DIR": "/home/me/a clone",
        "TRAINYARD_DATA": "synthetic",
        "TRAINYARD_IMAGE": "repo@sha256:abc",
        "TRAINYARD_WORK_POOL": "trainyard",
    }
