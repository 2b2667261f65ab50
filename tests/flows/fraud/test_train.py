"""What the fraud flow's declaration promises; its runs are in tests/e2e/flows."""

import subprocess
import sys

import pytest
from prefect import Task
from prefect.exceptions import ParameterTypeError
from prefect.utilities.schema_tools.validation import is_valid

from flows.fraud import tasks
from flows.fraud.train import fraud_train
from tests.conftest import ROOT

GIVEN = {"data_path": "data/train_transaction.csv", "version": "1.0.1", "stage": "prod"}


def test_it_takes_the_tutorials_parameters_and_asks_for_all_three() -> None:
    schema = fraud_train.parameters.model_dump()
    fraud_train.validate_parameters(GIVEN)
    assert is_valid(GIVEN, schema)
    assert schema["required"] == ["data_path", "version", "stage"]


@pytest.mark.parametrize(
    "given",
    [
        *({"version": version} for version in ("", "1.0 beta", "x" * 51)),
        *({"stage": stage} for stage in ("", "pro/d")),
        *({"data_path": path} for path in ("", "s3://key:secret@bucket/x", "$DATA")),
        *({"max_bad_share": share} for share in (-0.1, 1.1)),
    ],
    ids=str,
)
def test_what_a_tag_or_a_log_must_not_hold_is_refused_by_flow_and_schema(
    given: dict[str, object],
) -> None:
    with pytest.raises(ParameterTypeError, match=next(iter(given))):
        fraud_train.validate_parameters({**GIVEN, **given})
    assert not is_valid({**GIVEN, **given}, fraud_train.parameters.model_dump())


def test_all_that_waits_has_an_end_and_a_load_is_tried_six_times() -> None:
    found = [each for each in vars(tasks).values() if isinstance(each, Task)]
    assert len(found) == 4
    assert all(each.timeout_seconds for each in [*found, fraud_train])
    assert tasks.load_data.retries == 5
    assert tasks.load_data.isasync


def test_a_run_starts_without_waiting_for_what_only_training_needs() -> None:
    heavy = {"matplotlib", "sklearn", "skops", "xgboost"}
    script = f"import sys, flows.fraud.train; print({heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
