"""A month's trips for scoring, in any type that training takes."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.lifecycle.scoring import NO_ANSWER, score
from flows.taxi.batches import batches
from flows.taxi.spec import SPEC
from flows.taxi.synthetic import synthetic_month


class Answers:
    """A model that needs the time of pick-up."""

    def predict(self, trips: pl.DataFrame) -> Any:
        return np.where(trips["lpep_pickup_datetime"].is_null(), np.nan, 1.0)


@pytest.mark.parametrize("kind", [pl.Categorical(), pl.Enum(["12", "?"]), pl.String()], ids=str)
def test_zones_may_be_text_of_any_kind(kind: pl.DataType, tmp_path: Path) -> None:
    zones = pl.Series("PULocationID", ["?", "12", "12"], dtype=kind)
    month = synthetic_month("2023-01").head(3).with_columns(zones)
    month = month.with_columns(
        pl.Series("lpep_pickup_datetime", [*month["lpep_pickup_datetime"][:2], None])
    )
    file = tmp_path / "month.parquet"
    month.write_parquet(file)
    counts = score(Answers(), SPEC, batches(file, "the file"), tmp_path, {})
    assert counts == {"": 1, "PULocationID unreadable": 1, NO_ANSWER: 1}
    quarantined = pl.read_parquet(tmp_path / "quarantine.parquet")
    assert quarantined["PULocationID"].to_list() == ["?", "12"]
