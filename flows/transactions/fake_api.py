"""The demo's unreliable API: made-up transactions by the page, with faults that a seed decides.

`/transactions?page=1` has the newest. `snapshot` changes whenever the transactions do.
"""

import json
import random
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flows.platform.synthetic_api import Answer

TRANSACTIONS, PAGE_SIZE = 6_000, 500
FAULTS = {
    "error": 0.08,  # 500
    "throttled": 0.05,  # 429, with Retry-After in seconds or as a date
    "bad_json": 0.05,  # the page is cut off
    "slow": 0.02,  # comes when the client waits no longer
    "changes": 0.06,  # new transactions come in, and others are refunded
}
"""The share of requests that meet each."""
CHANGES = 2
"""How often the transactions change at most."""
SLOW = 6.0
"""Seconds."""
START, DAYS = datetime(2026, 1, 1), 90
COUNTRIES = ("NL", "DE", "FR", "US")
# How often a purchase of each category is refunded, before all else.
CATEGORIES = {"groceries": 0.02, "fuel": 0.02, "travel": 0.15, "electronics": 0.3, "fashion": 0.5}
# What is wrong with a broken transaction: one in a hundred.
BROKEN: tuple[dict[str, Any], ...] = (
    {"amount": "n/a"},
    {"amount": "-3.00"},
    {"currency": "XXX"},
    {"created_at": "yesterday"},
    {"status": None},
    {"id": None},
)

Transaction = dict[str, Any]


class UnreliableApi:
    """Answers requests; the same seed and requests give the same answers."""

    def __init__(
        self,
        seed: int = 42,
        transactions: int = TRANSACTIONS,
        page_size: int = PAGE_SIZE,
        faults: Mapping[str, float] = FAULTS,
    ) -> None:
        self._seed, self._page_size, self._faults = seed, page_size, faults
        self._requests = 0
        made = [self._made_up(number) for number in range(transactions)]
        self.versions = [sorted(made, key=lambda each: str(each["updated_at"]), reverse=True)]
        """The transactions, and what they became with each change."""

    def __call__(self, path: str) -> Answer:
        self._requests += 1
        fault = self._fault()
        if fault == "changes" and len(self.versions) <= CHANGES:
            self._change()
        body = self._page(int(parse_qs(urlsplit(path).query).get("page", ["1"])[0]))
        match fault:
            case "error":
                return Answer(b"out of order", 500)
            case "throttled":
                as_date = formatdate(time.time() + 1, usegmt=True)
                return Answer(b"", 429, {"Retry-After": "1" if self._requests % 2 else as_date})
            case "bad_json":
                return Answer(body[: len(body) // 2])
            case "slow":
                return Answer(body, delay=SLOW)
        return Answer(body)

    def _fault(self) -> str:
        names = [*self._faults, ""]
        shares = [*self._faults.values(), 1 - sum(self._faults.values())]
        return self._random("fault", self._requests).choices(names, shares)[0]

    def _page(self, number: int) -> bytes:
        newest, size = self.versions[-1], self._page_size
        items = newest[(number - 1) * size : number * size]
        chance = self._random("page", len(self.versions), number)
        # some come twice: in the page itself, from the page before, and as they were at first
        again = chance.sample(items, min(3, len(items)))
        again += newest[max(0, (number - 1) * size - 2) : (number - 1) * size]
        first = {each["id"]: each for each in self.versions[0] if each["id"]}
        again += [first[each["id"]] for each in again if each["id"] in first]
        page = {
            "snapshot": f"v{len(self.versions)}",
            "page": number,
            "pages": -(-len(newest) // size),
            "total": len(newest),
            "transactions": items + again,
        }
        return json.dumps(page).encode()

    def _change(self) -> None:
        now, known = self.versions[-1], len(self.versions[-1])
        later = {"updated_at": f"{START + timedelta(days=DAYS + len(self.versions)):%FT%TZ}"}
        chance = self._random("change", len(self.versions))
        refunded = set(chance.sample(range(known), known // 100))
        self.versions.append(
            [self._made_up(known + new) | later for new in range(known // 100)]
            + [
                {**each, "status": "refunded", **later} if at in refunded else each
                for at, each in enumerate(now)
            ]
        )

    def _made_up(self, number: int) -> Transaction:
        chance = self._random("transaction", number)
        category, home = chance.choice([*CATEGORIES]), chance.choice(COUNTRIES)
        country = home if chance.random() < 0.8 else chance.choice(COUNTRIES)
        amount = chance.lognormvariate(3.5, 0.8)
        often = CATEGORIES[category] + 0.3 * (country != home) + 0.2 * (amount > 60)
        moment = START + timedelta(seconds=chance.randrange(DAYS * 86_400))
        made = {
            "id": f"t{number:07}",
            "category": category,
            "country": country,
            "home_country": home,
            "currency": "USD" if country == "US" else "EUR",
            "amount": f"{amount:.2f}",
            "created_at": f"{moment:%FT%TZ}",
            "updated_at": f"{moment:%FT%TZ}",
            "status": "refunded" if chance.random() < often else "settled",
        }
        if number % 100 == 99:
            made |= BROKEN[number // 100 % len(BROKEN)]
            # what has no id is told from others by all that it has
        return made

    def _random(self, *of: object) -> random.Random:
        return random.Random(f"{self._seed} {of}")  # noqa: S311
