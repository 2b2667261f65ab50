"""What a schedule in prefect.yaml must be to start runs when its author means it to."""

import re
from datetime import timedelta
from typing import Annotated, Any

from prefect.cli.deploy import _models, _schedules
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.server.schemas import schedules as server
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

_SERVER = TypeAdapter[Any](server.SCHEDULE_TYPES)


def _as_meant(interval: Any) -> Any:
    if isinstance(interval, bool):
        raise ValueError(f"it is {str(interval).lower()}, not a length of time")
    if re.match(r"[-+]?P[^T]*[YM]", str(interval)):
        raise ValueError("it would be 30 or 365 days, and drift")
    return interval


def _long_enough(interval: timedelta | None) -> timedelta | None:
    if interval and timedelta(0) < interval < timedelta(seconds=10):
        raise ValueError("a run takes longer to start; make it 10 seconds or more")
    return interval


class Schedule(_models.RawScheduleConfig):
    """Prefect's schedule, as strict as its scheduler, which tells of failures in its log only."""

    cron: Annotated[str | None, Field(pattern=r"^\s*(@\w+|\S+(\s+\S+){4})\s*$")] = None
    interval: Annotated[
        timedelta | None, BeforeValidator(_as_meant), AfterValidator(_long_enough)
    ] = None
    timezone: str
    slug: Annotated[str | None, Field(pattern=r"\S")] = None
    active: bool

    @model_validator(mode="after")
    def _starts_runs(self) -> "Schedule":
        for key, owner in (("anchor_date", "interval"), ("day_or", "cron")):
            if getattr(self, key) is not None and getattr(self, owner) is None:
                raise ValueError(f"only a schedule with {owner}: has {key}; remove it")
        given = self.model_dump(mode="json")
        made = _schedules._schedule_config_to_deployment_schedule(given)["schedule"]
        if isinstance(made, RRuleSchedule):
            _require_sound(made.rrule, self.timezone)
        try:
            dates = _SERVER.validate_python(made.model_dump())._get_dates_generator(n=1)
            some = next(dates, None)
        except ValueError as error:
            cure = "; write UNTIL without its Z" if "UNTIL" in str(error) else ""
            raise ValueError(f"{error}{cure}") from None
        if not some:
            raise ValueError("it is over, or never comes; renew or remove it (COUNT needs DTSTART)")
        return self


def _require_sound(rrule: str, timezone: str) -> None:
    """Refuse a rule that Prefect's scheduler reads otherwise, or counts at for minutes."""
    if re.search(r"FREQ=(MINUTELY|SECONDLY)", rrule, re.I):
        raise ValueError(
            "Prefect counts all its dates each time; use interval, or cron: '* * * * *'"
        )
    if re.search(r"INTERVAL=(-|0+(?!\d))", rrule, re.I):
        raise ValueError("INTERVAL has to be 1 or more")
    zones = set(re.findall(r"TZID=([^:;,\s]+)", rrule, re.I))
    if re.search(r"(DTSTART|DATE)\S*\dZ", rrule, re.I) and timezone not in ("UTC", "Etc/UTC"):
        zones |= {"UTC (its Z)"}
    if others := sorted(zones - {timezone}):
        raise ValueError(
            f"it is in {', '.join(others)}, and Prefect takes its hours as those of timezone:"
            f" {timezone}; write both in one time zone"
        )
