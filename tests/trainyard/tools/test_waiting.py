"""Waiting: until the answer is right, or the time is up."""

import operator

from trainyard.tools.waiting import wait_until


def test_it_asks_until_the_answer_is_right_and_gives_it() -> None:
    answers, slept = iter([1, 2, 3, 4]), list[float]()
    found = wait_until(
        lambda answer: answer == 3, lambda: next(answers), seconds=60, every=7, sleep=slept.append
    )
    assert found == 3
    assert slept == [7, 7]


def test_when_the_time_is_up_it_gives_the_last_answer() -> None:
    assert wait_until(operator.not_, lambda: ["mlflow"], seconds=0) == ["mlflow"]
