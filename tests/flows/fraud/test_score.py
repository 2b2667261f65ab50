"""CSVs of transactions for scoring, a batch at a time."""

from pathlib import Path

import pytest

from flows.fraud.score import batches
from flows.fraud.source import synthetic_transactions
from flows.platform.contract import ContractError


def test_a_transaction_of_two_files_is_refused_as_in_training(tmp_path: Path) -> None:
    files = [str(tmp_path / f"train_transaction-{n}.csv") for n in (1, 2)]
    for seed, file in enumerate(files, start=1):
        synthetic_transactions(seed, rows=100).write_csv(file)
    assert sum(len(batch.rows) for batch in batches(files)) == 198
    synthetic_transactions(1, rows=100).tail(7).write_csv(files[1])
    with pytest.raises(
        ContractError, match=r"-2\.csv: 7 of its TransactionIDs are in another file"
    ):
        list(batches(files))
