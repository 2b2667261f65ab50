"""What a transaction must have to be stored, and what is added to it.

Every transaction is accounted for: it is stored or quarantined.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dataframely as dy
import polars as pl

from flows.platform.contract import lossless, require_few_bad, sort_rows, unreadable

# Euros for one unit of each currency.
RATES = {"EUR": 1.0, "USD": 0.92}
MAX_BAD_SHARE = 0.05
"""Of all transactions: with more of them broken, the API is, and nothing is published."""


class Sent(dy.Schema):
    """A transaction as it is sent, with its types: times are UTC, `amount` is in its currency."""

    id = dy.String(min_length=1, max_length=64)
    category = dy.String(min_length=1)
    country = dy.String(regex="^[A-Z]{2}$")
    home_country = dy.String(regex="^[A-Z]{2}$")
    currency = dy.String(check=lambda currency: currency.is_in([*RATES]))
    amount = dy.Float64(min_exclusive=0, max=1e6)
    created_at = dy.Datetime()
    updated_at = dy.Datetime()
    status = dy.String(check=lambda status: status.is_in(["settled", "refunded"]))


class Transactions(Sent):
    """A transaction as it is stored."""

    amount_eur = dy.Float64()
    foreign = dy.Bool()
    hour = dy.Int64()
    weekday = dy.Int64()


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
    names = Sent.column_names()
    sent = [each if isinstance(each, dict) else {} for each in transactions]
    text = [[None if row.get(n) is None else str(row[n]) for n in names] for row in sent]
    raw = pl.DataFrame(text, dict.fromkeys(names, pl.String), orient="row").with_row_index("row")
    moments = {
        name: pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False)
        for name in ("created_at", "updated_at")
    }
    values = {"amount": lossless(pl.col("amount"), pl.String(), pl.Float64()), **moments}
    rate = pl.col("currency").replace_strict(RATES, default=None, return_dtype=pl.Float64)
    rows = raw.with_columns(fault=unreadable(values), **values).with_columns(
        amount_eur=(pl.col("amount") * rate).round(2),
        foreign=pl.col("country") != pl.col("home_country"),
        hour=pl.col("created_at").dt.hour().cast(pl.Int64),
        weekday=pl.col("created_at").dt.weekday().cast(pl.Int64),
    )
    good, bad, _ = sort_rows(Transactions, rows, "a page", max_bad_share=1)
    # in the order of ids: two runs that write at once don't wait for each other in a circle
    return Checked(
        rows=good.sort("id", "updated_at").unique("id", keep="last", maintain_order=True),
        broken={repr(transactions[row]): rule for row, rule in bad.iter_rows()},
    )


def require_few_broken(broken: Mapping[str, str], stored: int) -> None:
    """Refuse an API of whose transactions more than `MAX_BAD_SHARE` are broken."""
    counts = dict(Counter(broken.values()).most_common())
    require_few_bad(counts, len(broken) + stored, MAX_BAD_SHARE, "the API", "ask who keeps it")
