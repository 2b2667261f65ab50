"""Models of many months, read one at a time, are those of all months in memory."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from flows.taxi.matrices import Numbers, matrices

PARAMS = {"tree_method": "hist", "grow_policy": "lossguide", "max_leaves": 32, "nthread": 1}
ROWS = (3_000, 1, 5_000, 700)


def month(number: int) -> Numbers:
    rng = np.random.default_rng(number)
    features = rng.uniform(size=(ROWS[number], 5)).astype(np.float32)
    features[rng.uniform(size=features.shape) < 0.05] = np.nan
    return features, np.nan_to_num(features[:, 0]) * (10 + number) + rng.normal(size=ROWS[number])


def model(train: xgb.DMatrix, valid: xgb.DMatrix) -> tuple[bytes, list[float]]:
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        PARAMS, train, 10, evals=[(valid, "valid")], evals_result=history, verbose_eval=False
    )
    return bytes(booster.save_raw("ubj")), history["valid"]["rmse"]


@pytest.mark.parametrize("rows_in_memory", [sum(ROWS), sum(ROWS) - 1], ids=["memory", "disk"])
def test_a_model_is_the_same_however_its_months_are_read(
    rows_in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    every = [month(number) for number in range(len(ROWS))]
    features, durations = (np.concatenate(parts) for parts in zip(*every, strict=True))
    whole = xgb.QuantileDMatrix(features, label=durations)
    valid = xgb.QuantileDMatrix(*month(0), ref=whole)

    found = matrices(
        [partial(month, number) for number in range(len(ROWS))],
        partial(month, 0),
        sum(ROWS),
        rows_in_memory,
    )
    assert model(*found) == model(whole, valid)
    on_disk = list(tmp_path.iterdir())
    assert bool(on_disk) == (rows_in_memory < sum(ROWS))
    del found
    assert not list(tmp_path.iterdir()), "it takes its files with it"
