"""The demo's unreliable API: made-up transactions by the page, with faults that a seed decides."""

import json
import random
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flows.platform.synthetic_api import Answer

FAULTS = {
    "error": 0.08,  # 500
    "throttled": 0.05,  # 429, with Retry-After in seconds or as a date
    "bad_json": 0.05,  # the page is cut off
    "slow": 0.02,  # comes when the client waits no longer
    "changes": 0.06,  # new transactions come in, and others are refunded
}
"""The share of requests that meet each."""
CHANGES = 2  # at most
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


class UnreliableApi:
    """Answers `/transactions?page=1`, the newest; the same seed and requests get the same."""

    def __init__(
        self,
        seed: int = 42,
        transactions: int = 6_000,
        page_size: int = 500,
        faults: Mapping[str, float] = FAULTS,
    ) -> None:
        self._seed, self._page_size, self._faults = seed, page_size, faults
        self._requests = 0
        made = [self._made_up(number) for number in range(transactions)]
        self.versions = [sorted(made, key=lambda each: str(each["updated_at"]), reverse=True)]
        """The transactions, and what they became with each change."""

    def __call__(self, path: str) -> Answer:
        self._requests += 1
        none = 1 - sum(self._faults.values())
        chance = self._random("fault", self._requests)
        (fault,) = chance.choices([*self._faults, ""], [*self._faults.values(), none])
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
                return Answer(body, delay=6)
        return Answer(body)

    def _page(self, number: int) -> bytes:
        newest, size = self.versions[-1], self._page_size
        start, end = (number - 1) * size, number * size
        # some come twice: of this page or the one before, and as they were at first
        near = newest[max(0, start - size) : end]
        again = self._random("page", len(self.versions), number).sample(near, min(5, len(near)))
        first = {each["id"]: each for each in self.versions[0] if each["id"]}
        again += [first[each["id"]] for each in again if each["id"] in first]
        page = {
            "snapshot": f"v{len(self.versions)}",
            "page": number,
            "pages": -(-len(newest) // size),
            "total": len(newest),
            "transactions": newest[start:end] + again,
        }
        return json.dumps(page).encode()

    def _change(self) -> None:
        now, chance = self.versions[-1], self._random("change", len(self.versions))
        later = {"updated_at": f"{START + timedelta(days=DAYS + len(self.versions)):%FT%TZ}"}
        refunded = {"status": "refunded", **later}
        new = [self._made_up(len(now) + n) | later for n in range(len(now) // 100)]
        self.versions.append(
            new + [each | refunded if chance.random() < 0.01 else each for each in now]
        )

    def _made_up(self, number: int) -> dict[str, Any]:
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
        return made | (BROKEN[number // 100 % len(BROKEN)] if number % 100 == 99 else {})

    def _random(self, *of: object) -> random.Random:
        return random.Random(f"{self._seed} {of}")  # noqa: S311
