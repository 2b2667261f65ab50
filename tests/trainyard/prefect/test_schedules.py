"""Prefect's scheduler with the versions that are locked: it says of a failure only in its own log."""

import asyncio

from prefect.server.schemas.schedules import CronSchedule


def test_a_cron_schedule_gives_the_next_run() -> None:
    at_six = CronSchedule(cron="0 6 * * *", timezone="America/New_York")
    (date,) = asyncio.run(at_six.get_dates(1))
    assert (date.hour, date.minute) == (6, 0)
