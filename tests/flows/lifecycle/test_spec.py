"""What a pipeline may say of its model, and where a spec is looked for."""

import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from flows.lifecycle.spec import SpecError, distance, load_spec, mistaken, pandas_frame
from flows.taxi.spec import SPEC as TAXI
from flows.wine.spec import PLACE
from flows.wine.spec import SPEC as WINE
from tests.flows.lifecycle.models import CLOSENESS, MAE, SPEC


@pytest.mark.parametrize("name", ["", "Wine", "wine_cultivar", "-wine", "wine--x", "wine/x", "a'b"])
def test_a_name_that_prefect_or_mlflow_would_refuse_is_refused_at_once(name: str) -> None:
    with pytest.raises(SpecError, match="write lower case, digits and single dashes"):
        replace(SPEC, name=name)


def test_a_model_without_a_metric_is_refused() -> None:
    with pytest.raises(SpecError, match="give at least one metric; the first one decides"):
        replace(SPEC, metrics=())


def test_a_metric_is_shown_with_its_unit() -> None:
    assert (MAE.show(1.23456), CLOSENESS.show(1.0)) == ("1.235 g", "1")


def test_the_error_of_a_row_is_a_distance_or_a_mistake() -> None:
    true, predicted = np.array([1, 2, 3]), np.array([1, 4, 0])
    assert distance(true, predicted).tolist() == [0, 2, 3]
    assert mistaken(true, predicted).tolist() == [0, 1, 1]


def test_pandas_has_the_same_columns_in_the_same_order() -> None:
    rows = pl.DataFrame({"b": [1.5, None], "a": ["x", None]})
    frame = pandas_frame(rows)
    assert frame.columns.tolist() == ["b", "a"]
    assert frame.isna().to_numpy().tolist() == [[False, False], [True, True]]


def test_a_spec_is_found_where_the_registry_says() -> None:
    assert load_spec(PLACE) is WINE
    assert load_spec("flows.taxi.spec:SPEC") is TAXI


@pytest.mark.parametrize(
    "place", ["antigravity:SPEC", "os:SPEC", "flowsy.x:SPEC", "flows.wine.spec", "flows.x:A.b", ""]
)
def test_what_is_not_of_this_repository_is_never_imported(place: str) -> None:
    with pytest.raises(SpecError, match=r"names no spec of this repository: write flows\."):
        load_spec(place)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("flows.nothing:SPEC", "no spec at flows.nothing:SPEC: No module named 'flows.nothing'"),
        ("flows.wine.spec:OTHER", "no spec at .*is this the code that trained it?"),
        ("flows.wine.spec:PLACE", "flows.wine.spec:PLACE is no ModelSpec but a str"),
    ],
)
def test_a_spec_that_is_not_there_is_named(place: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_spec(place)
