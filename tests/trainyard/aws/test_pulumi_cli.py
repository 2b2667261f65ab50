"""The `pulumi` command: what its failures are told with."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainyard.aws.fake_pulumi import fake_pulumi
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.tools.errors import StackError

LOCKED = "error: the stack is currently locked by 1 lock(s)"


def test_a_missing_pulumi_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match=r"pulumi\.com"):
        Pulumi("dev").up()


def test_a_stack_that_was_never_made_is_told_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr="error: no stack named dev found")
    with pytest.raises(StackError, match="`make bootstrap STACK=dev`"):
        stack.outputs()


def test_a_lock_is_told_with_what_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr=LOCKED)
    with pytest.raises(StackError, match="`pulumi --cwd infra cancel --stack dev`, then `make up"):
        stack.up()
    with pytest.raises(StackError) as failed:
        replace(stack, unlock="`make down STACK=rehearsal`").up()
    assert "`make down STACK=rehearsal`" in str(failed.value)
    assert "pulumi --cwd infra cancel" not in str(failed.value)


def test_who_says_itself_what_is_left_gets_no_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr=LOCKED)
    with (tmp_path / "log").open("w") as log, pytest.raises(StackError) as failed:
        replace(stack, log=log, advise=False).up()
    assert "make" not in str(failed.value)
    assert (tmp_path / "log").read_text().strip() == LOCKED
