"""What `trainyard backfill` was asked for, and what is wrong with it before Prefect is asked.

It imports nothing of Prefect: a command reads it before it knows which Prefect is meant.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

# What each run of a backfill is given another one of.
MONTH = "month"
MAX_MONTHS = 240

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


class Backfill(BaseModel, frozen=True):
    """A deployment, and the months that it has to run for."""

    deployment: str
    months: str
    """FIRST..LAST, both included."""
    parameters: tuple[str, ...] = ()
    """NAME=VALUE, for all months; a value is JSON where it can be read as JSON, else text."""
    parallel: int = 2
    """How many runs at a time, at most."""
    again: bool = False
    """Run the months, too, that have completed."""

    def every_month(self) -> list[str]:
        """Each month of the range, in order; none where it is no range."""
        first, last = (_number(each) for each in [*self.months.split(".."), ""][:2])
        if first is None or last is None:
            return []
        return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(first, last + 1)]

    def values(self) -> dict[str, Any]:
        """The parameters for all months."""
        pairs = (each.partition("=") for each in self.parameters if "=" in each)
        return {name: _value(text) for name, _, text in pairs}

    def faults(self) -> Iterator[str]:
        """What is wrong with it, whatever Prefect has."""
        parts = self.months.split("..")
        if len(parts) != 2:
            yield f"months {self.months!r}: write FIRST..LAST, such as 2023-01..2023-06"
        elif bad := [each for each in parts if _number(each) is None]:
            yield f"months {self.months}: {' and '.join(map(repr, bad))} isn't YYYY-MM"
        elif parts[1] < parts[0]:
            yield f"months {self.months}: the last one is before the first"
        elif (count := len(self.every_month())) > MAX_MONTHS:
            yield (
                f"months {self.months}: {count} months; one backfill takes {MAX_MONTHS}, so make "
                "several of it"
            )
        names = [each.partition("=")[0] for each in self.parameters]
        for given, name in zip(self.parameters, names, strict=True):
            if "=" not in given or not name:
                yield f"-p {given}: write NAME=VALUE"
        for name in dict.fromkeys(names):
            if name == MONTH:
                yield f"-p {MONTH}=: the range gives the months"
            elif names.count(name) > 1:
                yield f"-p {name}=: it is given {names.count(name)} times"
        if self.parallel < 1:
            yield f"--parallel {self.parallel}: at least 1"


def _number(month: str) -> int | None:
    """Months since year 0; None where it isn't YYYY-MM."""
    found = _MONTH.fullmatch(month)
    return int(found[1]) * 12 + int(found[2]) - 1 if found else None


def _value(text: str) -> Any:
    try:
        # NaN and infinity are Python's own: in JSON they would be refused later
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except ValueError:
        return text


def _no_json(constant: str) -> None:
    raise ValueError(constant)


def _finite(number: str) -> float:
    if math.isinf(found := float(number)):  # 1e999
        raise ValueError(number)
    return found
