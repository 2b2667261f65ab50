"""What a transaction must have to be stored, and what is added to it.

Every transaction is accounted for: it is stored or quarantined.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dataframely as dy
import polars as pl

from flows.platform.contract import ContractError, Numbered, listed, sort_rows

# Euros for one unit of each currency.
RATES = {"EUR": 1.0, "USD": 0.92}
STATUSES = ("settled", "refunded")
MAX_BAD_SHARE = 0.05
"""Of all transactions: with more of them broken, the API is, and nothing is published."""
RAW = (
    *("id", "category", "country", "home_country", "currency", "amount"),
    *("created_at", "updated_at", "status"),
)


class Transactions(dy.Schema):
    """A transaction as it is stored: times are UTC, `amount` is in its currency."""

    id = dy.String(min_length=1, max_length=64)
    category = dy.String(min_length=1)
    country = dy.String(regex="^[A-Z]{2}$")
    home_country = dy.String(regex="^[A-Z]{2}$")
    currency = dy.String(check=lambda currency: currency.is_in([*RATES]))
    amount = dy.Float64(min_exclusive=0, max=1e6)
    created_at = dy.Datetime()
    updated_at = dy.Datetime()
    status = dy.String(check=lambda status: status.is_in(STATUSES))
    amount_eur = dy.Float64()
    foreign = dy.Bool()
    hour = dy.Int64()
    weekday = dy.Int64()


class NumberedTransactions(Transactions, Numbered):
    """As `sort_rows` takes them."""


@dataclass(frozen=True)
class Checked:
    """A page's transactions: those to store, the newest of each id, and the broken ones."""

    rows: pl.DataFrame
    broken: dict[str, str]
    """What came -> the first rule that it breaks."""


def augment(transactions: Sequence[object]) -> Checked:
    """Sort transactions as they came into good and broken ones, and add what follows from them.

    Adds the amount in euros, whether it was spent abroad, and the hour and weekday (1 is Monday).
    """
    fields = [each if isinstance(each, dict) else {} for each in transactions]
    text = {
        name: [None if row.get(name) is None else str(row[name]) for row in fields] for name in RAW
    }
    raw = pl.DataFrame(text, schema=dict.fromkeys(RAW, pl.String)).with_row_index("row")
    moment = pl.col("created_at", "updated_at").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False
    )
    amount = pl.col("amount").cast(pl.Float64, strict=False)
    typed = raw.with_columns(moment, pl.when(amount.is_finite()).then(amount).alias("amount"))
    unreadable = (
        pl.when(raw[name].is_not_null() & pl.col(name).is_null()).then(pl.lit(f"{name} unreadable"))
        for name in ("amount", "created_at", "updated_at")
    )
    rate = pl.col("currency").replace_strict(RATES, default=None, return_dtype=pl.Float64)
    rows = typed.with_columns(
        fault=pl.coalesce(*unreadable),
        amount_eur=(pl.col("amount") * rate).round(2),
        foreign=pl.col("country") != pl.col("home_country"),
        hour=pl.col("created_at").dt.hour().cast(pl.Int64),
        weekday=pl.col("created_at").dt.weekday().cast(pl.Int64),
    )
    good, bad, _ = sort_rows(NumberedTransactions, rows, "a page", max_bad_share=1)
    return Checked(
        # in the order of ids: two runs that write at once don't wait for each other in a circle
        rows=good.sort("id", "updated_at").unique("id", keep="last", maintain_order=True)[
            Transactions.column_names()
        ],
        broken={repr(transactions[row]): rule for row, rule in bad.iter_rows()},
    )


def require_few_broken(broken: Mapping[str, str], stored: int) -> None:
    """Refuse an API that sends more than a few broken transactions.

    Args:
        broken: what came -> the rule that it breaks.
        stored: how many transactions are good.

    Raises:
        ContractError: the share of the broken ones is more than `MAX_BAD_SHARE`.
    """
    share = len(broken) / max(1, len(broken) + stored)
    if share > MAX_BAD_SHARE:
        counts = dict(Counter(broken.values()).most_common())
        raise ContractError(
            f"{len(broken):,} of {len(broken) + stored:,} transactions can't be used ({share:.1%}, "
            f"the limit is {MAX_BAD_SHARE:.0%}): {listed(counts)}; ask who keeps the API"
        )
