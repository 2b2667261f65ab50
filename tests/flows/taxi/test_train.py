"""What the taxi flow's declaration promises; its runs are in tests/e2e/flows."""

import jsonschema
import pytest
from prefect import Flow, Task
from prefect.exceptions import ParameterTypeError

from flows.taxi import preprocess, tasks, train
from flows.taxi.train import taxi_train

GOOD: list[dict[str, object]] = [
    {},
    {"train_month": "2023-12"},
    {"train_month": None, "valid_month": None},
    {"train_month": "2022-12", "valid_month": "2023-01"},
    {"train_month": "2022-12", "valid_month": "2023-01", "one_month": False},
    {"train_month": "2022-12", "one_month": True},
    {"train_month": None, "valid_month": None, "one_month": True},
    {"train_month": "2023-12", "num_months": 240},
    {"num_months": 1, "one_month": True},
    {"data": "s3://bucket/a prefix", "num_trials": 1000, "seed": 2**32 - 1},
    {"data": "/months of 2023/@home", "num_trials": 1, "seed": 0},
]
BAD: list[dict[str, object]] = [
    *(
        {"train_month": month}
        for month in ("2023-13", "2023-00", "2023-1", "2023-01-01", "1999-01")
    ),
    *({"valid_month": month} for month in ("january", "", " 2023-01", "2023-01 ", "2023/01")),
    {"train_month": 202301},
    *({"data": data} for data in ("", "${TRAINYARD_DATA}", "$DATA", "{{ $TRAINYARD_DATA }}")),
    *({"num_trials": count} for count in (0, -1, 1001, 1.5, "many")),
    {"one_month": "2023-01"},
    *({"num_months": count} for count in (0, 241, "many")),
    *({"seed": seed} for seed in (-1, 2**32, "x")),
]


@pytest.mark.parametrize("given", GOOD, ids=str)
def test_good_parameters_are_taken_by_schema_and_flow(given: dict[str, object]) -> None:
    jsonschema.validate(given, taxi_train.parameters.model_dump())
    taxi_train.validate_parameters(given)


@pytest.mark.parametrize("given", BAD, ids=str)
def test_bad_parameters_are_refused_by_the_schema_as_by_the_flow(given: dict[str, object]) -> None:
    """The schema is what the lint, Prefect's page and its API look at."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, taxi_train.parameters.model_dump())
    with pytest.raises(ParameterTypeError, match=str(next(iter(given)))):
        taxi_train.validate_parameters(given)


@pytest.mark.parametrize("valid", ["2023-03", "2022-12"])
def test_a_month_that_is_not_after_the_training_month_is_refused(valid: str) -> None:
    with pytest.raises(ParameterTypeError, match=f"valid_month {valid} is not after train_month"):
        taxi_train.validate_parameters({"train_month": "2023-03", "valid_month": valid})


def test_one_month_beside_a_validation_month_is_refused() -> None:
    given = {"train_month": "2023-03", "valid_month": "2023-04", "one_month": True}
    with pytest.raises(ParameterTypeError, match="valid_month 2023-04 with one_month: a run on"):
        taxi_train.validate_parameters(given)


def test_one_month_beside_several_is_refused() -> None:
    with pytest.raises(ParameterTypeError, match="num_months 3 with one_month: leave one of them"):
        taxi_train.validate_parameters({"num_months": 3, "one_month": True})


def test_the_longest_trip_is_longer_than_the_shortest() -> None:
    with pytest.raises(ParameterTypeError, match="y_max 5 is not above y_min 5"):
        taxi_train.validate_parameters({"y_min": 5, "y_max": 5})
    taxi_train.validate_parameters({"y_min": 0.5, "y_max": 90})


def test_a_run_and_all_that_waits_in_it_have_an_end() -> None:
    assert taxi_train.timeout_seconds
    parts = {
        name: part
        for module in (train, tasks, preprocess)
        for name, part in vars(module).items()
        if isinstance(part, Task)
    }
    assert len(parts) == 12
    assert [name for name, task in parts.items() if not task.timeout_seconds] == []


def test_results_are_json() -> None:
    assert isinstance(preprocess.preprocess, Flow)
    assert preprocess.preprocess.persist_result
    assert preprocess.preprocess.result_serializer == "json"
    assert taxi_train.result_serializer == "json"
