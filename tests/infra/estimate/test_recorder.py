"""The recorder itself: what the tables, prices and tests of the program rest on."""

import asyncio

from pulumi.runtime.settings import SETTINGS

from infra.estimate.recorder import run


def test_a_stack_is_recorded_whatever_an_earlier_program_left_unfinished() -> None:
    loop = asyncio.new_event_loop()
    left = loop.create_task(asyncio.sleep(0))
    loop.run_until_complete(left)
    loop.close()
    SETTINGS.outputs.add(left)

    assert run("dev").of("Bucket")
