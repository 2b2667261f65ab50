"""What training needs from a CSV of transactions, and what becomes of rows that don't have it."""

from pathlib import Path

import dataframely as dy
import polars as pl

from flows.fraud.spec import AMOUNT, ID, TARGET
from flows.platform.contract import lossless, sort_rows, unreadable
from flows.platform.csv_rows import FIRST_LINE, read_rows

MAX_ROWS = 2_000_000
"""Of a file: three times as many as the data set has, in 0.8 GB of a run's 4."""


class Unlabelled(dy.Schema):
    """A transaction that the model can answer: columns of IEEE-CIS, the amount in dollars."""

    TransactionID = dy.Int64(min=0)
    TransactionAmt = dy.Float64(min_exclusive=0, max=1_000_000)
    ProductCD = dy.String(nullable=True, max_length=100)
    card4 = dy.String(nullable=True, max_length=100)
    P_emaildomain = dy.String(nullable=True, max_length=100)
    R_emaildomain = dy.String(nullable=True, max_length=100)
    M1 = dy.String(nullable=True, max_length=100)
    M2 = dy.String(nullable=True, max_length=100)
    M3 = dy.String(nullable=True, max_length=100)


class Transactions(Unlabelled):
    """A transaction that training can use."""

    isFraud = dy.Int8(min=0, max=1)  # noqa: N815  the file's own name


def check(
    path: Path, file: str, max_bad_share: float, schema: type[dy.Schema] = Transactions
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Sort the rows of a local CSV into those that can be used and those that can't.

    Args:
        path: of the CSV.
        file: its name, for messages.
        max_bad_share: the share of bad rows, 0 to 1, beyond which it is refused.
        schema: the rules: `Transactions` for training, `Unlabelled` for scoring.

    Returns:
        The good rows; the bad ones as written, with their line (`row`) and the first `rule` that
        each breaks; and these by rule.

    Raises:
        ContractError: the file is no such CSV, or has more bad rows than `max_bad_share`.
    """
    raw = read_rows(path, file, schema.column_names(), MAX_ROWS)
    columns = schema.columns()
    types = {name: columns[name].dtype for name in (ID, TARGET, AMOUNT) if name in columns}
    values = {name: lossless(pl.col(name), pl.String(), dtype) for name, dtype in types.items()}
    again = pl.col(ID).is_not_null() & ~pl.col(ID).is_first_distinct()
    repeated = pl.when(again).then(pl.lit(f"{ID} repeated"))
    rows = raw.with_columns(fault=pl.coalesce("fault", unreadable(values), repeated), **values)
    good, bad, counts = sort_rows(schema, rows, file, max_bad_share)
    quarantined = raw.drop("fault")[bad["row"] - FIRST_LINE].with_columns(bad["rule"])
    return good, quarantined, counts
