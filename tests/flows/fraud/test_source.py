"""Which files a data path names, and what the synthetic ones hold."""

from pathlib import Path

import polars as pl
import pytest

from flows.fraud.source import find_files, synthetic_transactions
from flows.fraud.spec import CATEGORIES


def test_a_csv_is_itself_and_a_folder_the_transactions_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_transaction-2", "train_transaction-1", "train_identity", "own"):
        (tmp_path / f"{name}.csv").touch()
    found = [file.name for file in find_files(str(tmp_path), "store")]
    assert found == ["train_transaction-1.csv", "train_transaction-2.csv"]
    monkeypatch.chdir(tmp_path)
    (own,) = find_files("own.csv", "store")
    assert str(own) == str(tmp_path / "own.csv")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("empty", "no train_transaction*.csv in .*/empty: the folder has nothing; give a CSV's"),
        ("other", "the folder has own.csv; give a CSV's whole path, or synthetic"),
        ("nowhere", "no train_transaction*.csv in .*/nowhere: there is no such folder"),
        ("https://host/train.csv", "https://host/train.csv: give a CSV, a folder, an s3:// prefix"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/own.csv").touch()
    with pytest.raises(ValueError, match=said.replace("*.csv", r"\*\.csv")):
        find_files(place, str(tmp_path))


def test_synthetic_files_are_the_same_each_time_and_share_no_transaction(tmp_path: Path) -> None:
    first = [file.read_bytes() for file in find_files("synthetic", str(tmp_path))]
    assert [file.read_bytes() for file in find_files("synthetic", str(tmp_path))] == first
    ids = pl.concat(pl.read_csv(content)["TransactionID"] for content in first)
    assert (len(ids), ids.n_unique()) == (60_000, 60_000)


def test_synthetic_transactions_have_the_data_sets_columns_and_share_of_frauds() -> None:
    rows = synthetic_transactions(1)
    assert rows.columns[:4] == ["TransactionID", "isFraud", "TransactionDT", "TransactionAmt"]
    assert {*rows.columns[4:]} == {*CATEGORIES}
    assert rows["isFraud"].mean() == pytest.approx(0.035, abs=1e-4)
    assert (rows["TransactionAmt"] <= 0).sum() == 15
    of_product = rows.group_by("ProductCD").agg(pl.col("isFraud").mean())
    shares = dict(of_product.iter_rows())
    assert shares["C"] > 3 * shares["W"]
