"""Which faults a task tries again."""

import asyncio
from collections.abc import Callable

import pytest
from prefect.states import exception_to_failed_state

from flows.platform.artifact_store import ArtifactStoreError
from flows.platform.contract import ContractError
from flows.platform.task_options import RETRIED

MAY_PASS: Callable[..., bool] = RETRIED["retry_condition_fn"]


@pytest.mark.parametrize(
    ("error", "cause", "tried_again"),
    [
        (ArtifactStoreError("cannot read"), TimeoutError("no answer"), True),
        (ArtifactStoreError("cannot read"), FileNotFoundError("no such file"), False),
        (ArtifactStoreError("cannot write"), FileExistsError("a file is in the way"), False),
        (ArtifactStoreError("cannot write"), NotADirectoryError("a file is in the way"), False),
        (ArtifactStoreError("cannot write"), PermissionError("not yours"), False),
        (RuntimeError("MLflow doesn't answer"), None, True),
        (ContractError("no such column"), None, False),
        (ValueError("no such month"), TimeoutError("no answer"), False),
    ],
)
def test_a_fault_that_may_pass_is_tried_again_and_bad_input_is_not(
    error: Exception, cause: Exception | None, tried_again: bool
) -> None:
    error.__cause__ = cause
    state = asyncio.run(exception_to_failed_state(error))
    assert MAY_PASS(None, None, state) is tried_again

    async def asked_by_an_async_task() -> bool:
        return MAY_PASS(None, None, state)

    assert asyncio.run(asked_by_an_async_task()) is tried_again
