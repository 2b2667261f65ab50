"""What a stack hands on is the contract's: a wrong name or value ends the program."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from infra.stack_outputs import build
from tests.trainyard.aws.fake_stack import OUTPUTS
from trainyard.contract.outputs import EcsWorkPool

POOL = OUTPUTS["work_pool"]


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
