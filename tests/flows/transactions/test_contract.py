from typing import Any

import polars as pl
import pytest

from flows.platform.contract import ContractError
from flows.transactions.contract import Transactions, augment, require_few_broken


def made(**other: object) -> dict[str, Any]:
    return {
        "id": "t1",
        "category": "fashion",
        "country": "US",
        "home_country": "NL",
        "currency": "USD",
        "amount": "10.50",
        "created_at": "2026-03-06T22:15:00Z",
        "updated_at": "2026-03-06T22:15:00Z",
        "status": "settled",
        **other,
    }


def test_what_follows_from_a_transaction_is_added() -> None:
    (row,) = augment([made()]).rows.to_dicts()
    added = {name: row[name] for name in ("amount_eur", "foreign", "hour", "weekday")}
    assert added == {"amount_eur": 9.66, "foreign": True, "hour": 22, "weekday": 5}
    Transactions.validate(augment([made(), made(id="t2", amount=3)]).rows)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"id": None}, "id missing"),
        ({"id": ""}, "id not allowed"),
        ({"id": "t" * 65}, "id longer than 64"),
        ({"country": "Nowhere"}, "country not allowed"),
        ({"currency": "XXX"}, "currency not allowed"),
        ({"amount": "n/a"}, "amount unreadable"),
        ({"amount": "nan"}, "amount unreadable"),
        ({"amount": "inf"}, "amount unreadable"),
        ({"amount": -3}, "amount <= 0"),
        ({"amount": {"value": 3}}, "amount unreadable"),
        ({"created_at": "yesterday"}, "created_at unreadable"),
        ({"created_at": "2026-02-30T00:00:00Z"}, "created_at unreadable"),
        ({"status": "lost"}, "status not allowed"),
    ],
)
def test_a_broken_transaction_is_quarantined_with_its_rule(
    broken: dict[str, object], rule: str
) -> None:
    item = made(**broken)
    checked = augment([made(id="t2"), item])
    assert checked.rows["id"].to_list() == ["t2"]
    assert checked.broken == {repr(item): rule}


@pytest.mark.parametrize("item", [None, 3, "t1", [], {}, {"other": 1}])
def test_what_is_no_transaction_is_quarantined(item: object) -> None:
    checked = augment([item])
    assert checked.rows.is_empty()
    assert checked.broken == {repr(item): "id missing"}


def test_of_a_transaction_that_comes_twice_the_newest_is_kept() -> None:
    late = made(status="refunded", updated_at="2026-04-01T00:00:00Z")
    assert augment([late, made(), made()]).rows["status"].to_list() == ["refunded"]


def test_an_empty_page_is_no_error() -> None:
    assert augment([]).rows.schema == pl.Schema(Transactions.create_empty().schema)


def test_an_api_that_sends_too_many_broken_transactions_is_refused() -> None:
    require_few_broken({"a": "amount not allowed"}, 19)
    with pytest.raises(
        ContractError, match=r"^the API: 2 of 21 rows can't be used \(9.5%, the limit is 5.0%\): am"
    ):
        require_few_broken({"a": "amount not allowed", "b": "amount not allowed"}, 19)
