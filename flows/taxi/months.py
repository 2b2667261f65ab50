"""Months as TLC names them: "2023-01"."""

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

PATTERN = r"20[0-9]{2}-(0[1-9]|1[0-2])"


def parse_month(month: str) -> tuple[datetime, datetime]:
    """Return a month's first moment and the next month's: pickups lie in [first, next).

    Raises:
        ValueError: `month` is not written like 2023-01.
    """
    if not re.fullmatch(PATTERN, month):
        raise ValueError(f"{month!r} is not a month: write it like 2023-01")
    first = datetime(int(month[:4]), int(month[5:]), 1)
    return first, datetime(first.year + first.month // 12, first.month % 12 + 1, 1)


def latest_months(scheduled: datetime) -> tuple[str, str]:
    """Return the two newest months that TLC has published by `scheduled`, oldest first.

    TLC publishes a month about two months after it ends.
    """
    older, newer, *_ = months_until(f"{scheduled:%Y-%m}", 4)
    return older, newer


def chosen_months(
    train: str | None, valid: str | None, scheduled: datetime, one_month: bool = False
) -> tuple[str, str]:
    """Return the months to train and to validate on, from what a run was given.

    Without both, the two newest months; without `valid`, the month after `train`. With `one_month`
    both are the same: `train`, or the newest one.

    Raises:
        ValueError: a month is not written like 2023-01, `train` is missing, `valid` isn't later, or
            there is one beside `one_month`.
    """
    if one_month:
        if valid is not None:
            raise ValueError(
                f"valid_month {valid} with one_month: a run on one month validates on its last "
                "quarter; leave one of them out"
            )
        month = train or latest_months(scheduled)[1]
        parse_month(month)
        return month, month
    if train is None and valid is None:
        return latest_months(scheduled)
    if train is None:
        raise ValueError(f"valid_month {valid} without a train_month: give both, or neither")
    following = parse_month(train)[1]
    if valid is None:
        return train, f"{following:%Y-%m}"
    if parse_month(valid)[0] < following:
        raise ValueError(
            f"valid_month {valid} is not after train_month {train}: a model is validated on trips "
            "later than those it was trained on"
        )
    return train, valid


def months_until(last: str, count: int) -> list[str]:
    """Return so many months that end with `last`, oldest first."""
    end = int(last[:4]) * 12 + int(last[5:]) - 1
    return [f"{each // 12}-{each % 12 + 1:02}" for each in range(end - count + 1, end + 1)]


def quarters(month: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first and the last day of a month's first three quarters, and of its rest."""
    days = (parse_month(month)[1] - timedelta(days=1)).day
    last = 3 * days // 4
    return (1, last), (last + 1, days)


def _a_month(given: object) -> object:
    if isinstance(given, str):
        parse_month(given)
    return given


def _after_training(valid: str, given: ValidationInfo) -> str:
    # a train_month that is refused itself isn't among the data
    if "train_month" in given.data:
        chosen_months(given.data["train_month"], valid, datetime.min)
    return valid


def _of_one_month(one_month: bool, given: ValidationInfo) -> bool:
    if one_month and (valid := given.data.get("valid_month")) is not None:
        chosen_months(None, valid, datetime.min, one_month=True)
    if one_month and (count := given.data.get("num_months", 1)) > 1:
        raise ValueError(f"num_months {count} with one_month: leave one of them out")
    return one_month


# its sentence in a run's error, the pattern in the schema that Prefect's page and API go by
Month = Annotated[
    str, Field(pattern=f"^{PATTERN}$", examples=["2023-01"]), BeforeValidator(_a_month)
]
"""A flow's parameter, refused by the flow's schema where it isn't written like 2023-01."""
LaterMonth = Annotated[Month, AfterValidator(_after_training)]
"""The same, refused before a run starts where it isn't after the parameter `train_month`."""
OneMonth = Annotated[bool, AfterValidator(_of_one_month)]
"""Whether a run has one month only, refused beside a parameter that gives it more."""
