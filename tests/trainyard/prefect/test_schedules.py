"""Prefect's scheduler with the locked versions: it tells of a failure in its own log only."""

import asyncio

from prefect.server.schemas.schedules import CronSchedule


def test_a_cron_schedule_gives_the_next_run() -> None:
    at_six = CronSchedule(cron="0 6 * * *", timezone="America/New_York")
    (date,) = asyncio.run(at_six.get_dates(1))
    assert (date.hour, date.minute) == (6, 0)
