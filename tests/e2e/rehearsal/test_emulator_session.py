"""One machine, one emulator: whose it is, and what goes with it."""

import time
from pathlib import Path

import boto3
import pytest

from trainyard.rehearsal.emulator_session import CONTAINER, RehearsalError, Session
from trainyard.tools.docker import docker

pytestmark = pytest.mark.emulator


def emulator_id() -> str:
    return docker("inspect", "--format", "{{.Id}}", CONTAINER).stdout


def test_a_later_command_of_the_same_session_finds_its_emulator(emulator: Session) -> None:
    running = emulator_id()
    Session(home=emulator.home).start()
    assert emulator_id() == running


def test_the_emulator_is_reached_from_this_machine_only(emulator: Session) -> None:
    assert docker("port", CONTAINER).stdout.split("\n") == ["4566/tcp -> 127.0.0.1:4566", ""]


def test_another_session_leaves_the_emulator_alone(emulator: Session, tmp_path: Path) -> None:
    running = emulator_id()
    other = Session(home=tmp_path)
    with pytest.raises(RehearsalError) as refused:
        other.start()
    assert str(emulator.home) in str(refused.value)
    assert "make down STACK=rehearsal" in str(refused.value)
    other.stop()
    assert emulator_id() == running
    assert emulator.answers()


def test_a_session_ends_what_its_emulator_started_off_its_network(emulator: Session) -> None:
    ecs = boto3.Session("test", "test", region_name="us-east-1").client("ecs")
    container = {"name": "stray", "image": emulator.base, "command": ["sleep", "60"]}
    ecs.register_task_definition(
        family="stray", networkMode="host", containerDefinitions=[{**container, "stopTimeout": 1}]
    )
    task = ecs.run_task(taskDefinition="stray")["tasks"][0]["taskArn"]
    name = f"ministack-ecs-{task.rsplit('/', 1)[1][:8]}-stray"
    try:
        for _ in range(100):
            if name in emulator.containers():
                break
            time.sleep(0.1)
        assert name in emulator.containers()
    finally:
        ecs.stop_task(task=task)
