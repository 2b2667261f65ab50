"""What tasks have in common: what they persist, and which faults they try again."""

from typing import Any

from prefect.cache_policies import INPUTS, TASK_SOURCE
from prefect.tasks import exponential_backoff

# Results are small JSON: URIs and numbers. What a run has finished, its next attempt takes from
# the result store.
PERSISTED: dict[str, Any] = {"persist_result": True, "result_serializer": "json"}
# For tasks of `preprocess`: a run's next attempt makes a new run of this subflow, but has the same
# workspace.
PERSISTED_BY_WORKSPACE: dict[str, Any] = PERSISTED | {"cache_policy": INPUTS + TASK_SOURCE}


def _may_pass(task: object, run: object, state: Any) -> bool:
    """Bad data stays bad, a place that isn't there stays away: other faults are tried again."""
    # of an async task too, in which it would be a coroutine
    error = state.result(raise_on_failure=False, _sync=True)
    absent = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
    return not isinstance(error, ValueError) and not isinstance(error.__cause__, absent)


RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_condition_fn": _may_pass,
}

# Of a task that waits for something else: MLflow, Prefect, the store.
WAITS: dict[str, Any] = {"timeout_seconds": 900}
