"""What a stack hands on is the contract's: a wrong name or value ends the program."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from infra.stack_outputs import build
from trainyard.contract.outputs import EcsWorkPool

POOL: dict[str, Any] = {
    "name": "trainyard-dev",
    "region": "eu-central-1",
    "cluster_arn": "arn",
    "vpc_id": "vpc-1",
    "subnet_ids": ["subnet-1"],
    "security_group_ids": ["sg-1"],
    "assign_public_ip": True,
    "capacity_provider": "FARGATE",
    "cpu_architecture": "X86_64",
    "execution_role_arn": "arn",
    "task_role_arn": "arn",
    "log_group": "group",
    "queue_name": "queue",
    "environment": {},
    "secrets": {},
    "api_secret_variable": "PREFECT_API_KEY",
    "api_secret": "arn",
}


@pytest.mark.parametrize("wrong", ["subnets", None])
def test_a_field_that_is_misspelt_or_missing_is_named_before_anything_is_known(
    wrong: str | None,
) -> None:
    fields = {key: value for key, value in POOL.items() if key != "subnet_ids"}
    if wrong:
        fields[wrong] = POOL["subnet_ids"]
    with pytest.raises(TypeError, match=r"EcsWorkPool lacks \[.subnet_ids.\]"):
        build(EcsWorkPool, **fields)


def test_a_value_that_the_contract_refuses_is_written_nowhere() -> None:
    async def value() -> None:
        await build(EcsWorkPool, **{**POOL, "subnet_ids": []}).future()

    with pytest.raises(ValidationError, match="subnet_ids"):
        asyncio.run(value())


def test_what_is_built_is_the_document_that_register_reads() -> None:
    async def value() -> Any:
        return await build(EcsWorkPool, **POOL).future()

    assert EcsWorkPool.model_validate(asyncio.run(value())) == EcsWorkPool.model_validate(POOL)
