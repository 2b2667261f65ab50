"""Which transactions training gets, and under which rule the others are quarantined."""

from pathlib import Path

import polars as pl
import pytest

from flows.fraud.contract import Transactions, check
from flows.fraud.source import synthetic_transactions
from flows.platform.contract import ContractError

GOOD = {
    "TransactionID": "2987000",
    "isFraud": "0",
    "TransactionDT": "86400",
    "TransactionAmt": "68.5",
    "ProductCD": "W",
    "card4": "visa",
    "P_emaildomain": "",
    "R_emaildomain": "",
    "M1": "T",
    "M2": "",
    "M3": "F",
}


def csv(tmp_path: Path, *changes: dict[str, str]) -> Path:
    path = tmp_path / "t.csv"
    rows = [{**GOOD, "TransactionID": str(n), **each} for n, each in enumerate(changes)]
    path.write_text("\n".join(",".join(row) for row in [GOOD, *(r.values() for r in rows)]) + "\n")
    return path


def checked(
    tmp_path: Path, *changes: dict[str, str], max_bad_share: float = 1
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    return check(csv(tmp_path, *changes), "t.csv", max_bad_share)


def test_a_good_row_is_kept_with_what_is_missing_as_null(tmp_path: Path) -> None:
    kept, bad, counts = checked(
        tmp_path, {"isFraud": "1", "TransactionID": "7.0", "TransactionAmt": " 5 "}
    )
    row = dict.fromkeys(("P_emaildomain", "R_emaildomain", "M2"))
    row |= {"TransactionID": 7, "isFraud": 1, "TransactionAmt": 5.0}
    assert kept.rows(named=True) == [
        {name: row.get(name, GOOD[name] or None) for name in Transactions.column_names()}
    ]
    assert (bad.height, counts) == (0, {})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"TransactionID": ""}, "TransactionID missing"),
        ({"TransactionID": "x"}, "TransactionID unreadable"),
        ({"TransactionID": "2.5"}, "TransactionID unreadable"),
        ({"TransactionID": "-1"}, "TransactionID < 0"),
        ({"TransactionID": "0"}, "TransactionID repeated"),
        ({"isFraud": ""}, "isFraud missing"),
        ({"isFraud": "yes"}, "isFraud unreadable"),
        ({"isFraud": "2"}, "isFraud > 1"),
        ({"TransactionAmt": ""}, "TransactionAmt missing"),
        ({"TransactionAmt": "12,50"}, "too many fields"),
        ({"TransactionAmt": "$5"}, "TransactionAmt unreadable"),
        ({"TransactionAmt": "nan"}, "TransactionAmt unreadable"),
        ({"TransactionAmt": "0"}, "TransactionAmt <= 0"),
        ({"TransactionAmt": "1e7"}, "TransactionAmt > 1000000"),
        ({"M3": "x" * 101}, "M3 longer than 100"),
    ],
)
def test_a_row_that_cannot_be_used_is_quarantined_as_written(
    tmp_path: Path, change: dict[str, str], rule: str
) -> None:
    kept, bad, counts = checked(tmp_path, {}, change, {})
    assert (kept.height, counts) == (2, {rule: 1})
    (row,) = bad.rows(named=True)
    assert (row["row"], row["rule"]) == (3, rule)
    if rule != "too many fields":
        name, written = next(iter(change.items()))
        assert row[name] == (written or None)


def test_too_many_bad_rows_refuse_the_file_with_their_rules(tmp_path: Path) -> None:
    bad = {"TransactionAmt": "a lot"}
    assert checked(tmp_path, {}, {}, {}, bad, max_bad_share=0.25)[0].height == 3
    with pytest.raises(ContractError) as error:
        checked(tmp_path, {}, {}, bad, max_bad_share=0.25)
    assert str(error.value) == (
        "t.csv: 1 of 3 rows can't be used (33.3%, the limit is 25.0%): TransactionAmt unreadable "
        "(1); correct the file, or raise the limit if it is right as it is"
    )


def test_thirty_more_columns_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = synthetic_transactions(1, 4000)
    rows.write_csv(path)
    kept, _, counts = check(path, "t.csv", 1)
    rows.with_columns(pl.lit("x").alias(f"V{n}") for n in range(30)).write_csv(path)
    assert check(path, "t.csv", 1)[0].equals(kept)
    assert counts == {"TransactionAmt <= 0": 2}
