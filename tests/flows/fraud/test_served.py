"""Transactions that the served model is asked about: answered as the batch scorer answers them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.fraud.model import train
from flows.fraud.score import batches
from flows.fraud.served import Transaction
from flows.fraud.source import synthetic_transactions
from flows.fraud.spec import AMOUNT, SPEC
from flows.lifecycle.scoring import answered_by, answers
from flows.lifecycle.serving_models import use_one_thread
from flows.lifecycle.serving_rows import JSON, Limits, RequestError, RowReader

READER = RowReader(Transaction, Limits())


def read(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return READER.read(json.dumps({"rows": rows}).encode(), JSON)


def test_answers_are_the_batch_scorers_to_the_last_bit(tmp_path: Path) -> None:
    model = train(synthetic_transactions(1, 6_000).filter(pl.col(AMOUNT) > 0))
    file = tmp_path / "train_transaction.csv"
    synthetic_transactions(2, 2_000).write_csv(file)
    rows = pl.concat([batch.rows for batch in batches([str(file)])])
    expected, unanswered = answered_by(model, SPEC, rows)
    assert unanswered.is_empty()
    assert rows.null_count().sum_horizontal()[0] > 0
    use_one_thread(model)
    found, known = answers(model, SPEC, read(rows.to_dicts()))
    assert known.all()
    for name in SPEC.answers:
        assert found[name].to_numpy().tobytes() == expected[name].to_numpy().tobytes()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({AMOUNT: 0}, "rows[0].TransactionAmt: Input should be greater than 0"),
        ({AMOUNT: 1_000_001}, "rows[0].TransactionAmt: Input should be less than or equal"),
        ({AMOUNT: None}, "rows[0].TransactionAmt: Input should be a valid number"),
        ({"card4": "x" * 101}, "rows[0].card4: String should have at most 100 characters"),
        ({"M1": ""}, "rows[0].M1: String should have at least 1 character"),
        ({"M1": True}, "rows[0].M1: Input should be a valid string"),
    ],
)
def test_what_scoring_would_quarantine_is_refused(row: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as refused:
        read([READER.example | row])
    assert told in refused.value.detail
