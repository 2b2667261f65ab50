"""docs/operations.md: its commands, and what they promise, on the real engine and an emulator."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore import xform_name

from tests.conftest import ROOT
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.rehearsal.emulator_session import REPOSITORY, Session
from trainyard.tools.errors import StackError

PAGE = (ROOT / "docs/operations.md").read_text()
USE = ". infra/use dev"  # by tests/trainyard/aws/test_pulumi_cli.py
CANCEL = "pulumi --cwd infra cancel --yes --stack dev"
FORGET = "pulumi --cwd infra refresh --yes --skip-preview --clear-pending-creates --stack dev"
KEEP_DATA = "pulumi --cwd infra destroy --exclude-protected --yes --skip-preview --stack dev"
DATABASE = "trainyard-dev-database-postgres"

# Commands that a test below types. (The rest is only held to the spelling that its tool takes.)
TYPED = {USE, CANCEL, FORGET, KEEP_DATA, "make up STACK=dev", "make down STACK=dev"}
# What can't be typed here, and why.
ELSEWHERE = {
    "aws": "no emulator without Docker has a database's data; held to AWS's own service models",
    "make preview": "tests/e2e/rehearsal: it needs the policy pack's environment",
    "make deploy": "tests/e2e/rehearsal: it needs a Prefect server",
    "make doctor": "has tests of its own",
    "make bootstrap": "tests/e2e/rehearsal/test_first_push.py",
    "make backfill": "tests/trainyard/test_main.py, tests/trainyard/prefect/test_backfill.py",
    "make rollback": "tests/trainyard/delivery/test_release.py",
    "pulumi config set": "a setting's effect is tested, its file is Pulumi's own",
}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_every_command_is_typed_by_a_test_or_has_its_reason() -> None:
    def known(command: str) -> bool:
        return command in TYPED or any(
            re.match(rf"{start.replace(' ', r'( --cwd infra)? ')}\b", command)
            for start in ELSEWHERE
        )

    assert [command for command in commands() if not known(command)] == []
    assert TYPED - set(commands()) == set()


def test_aws_takes_the_commands_as_they_are_spelled() -> None:
    session = boto3.Session("test", "test", region_name="us-east-1")
    for command in commands():
        if not command.startswith("aws "):
            continue
        _, service, *words = command.split()
        client = session.client(service)  # type: ignore[call-overload]
        if words[0] == "wait":
            waiters = botocore.session.get_session().get_waiter_model(service)
            by_name = {xform_name(name, "-"): name for name in waiters.waiter_names}
            operation, words = waiters.get_waiter(by_name[words[1]]).operation, words[2:]
        else:
            methods = client.meta.method_to_api_mapping
            operation, words = methods[words[0].replace("-", "_")], words[1:]
        shape = client.meta.service_model.operation_model(operation).input_shape
        takes = {xform_name(name, "-") for name in shape.members}
        given = {word[2:].removeprefix("no-") for word in words if word.startswith("--")}
        assert given <= takes, command
        needed = {xform_name(name, "-") for name in shape.required_members}
        assert needed <= given, command


def test_make_takes_the_commands_as_they_are_spelled() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands():
        words = command.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command


@pytest.mark.pulumi
def test_pulumi_takes_the_commands_as_they_are_spelled() -> None:
    if not shutil.which("pulumi"):
        pytest.skip("there is no pulumi on PATH")
    for command in commands():
        words = command.split()
        if words[0] == "pulumi":
            verb = [word for word in words[3:] if not word.startswith("-")]
            asked = verb[:2] if verb[0] == "config" else verb[:1]
            shown = subprocess.run(
                ["pulumi", *asked, "--help"], capture_output=True, text=True, check=True
            ).stdout
            for flag in re.findall(r"--[a-z-]+", command):
                assert f"{flag} " in shown, f"{command}: {flag}"


# --- on the emulator ------------------------------------------------------------------------------
@dataclass
class Cloud:
    """An emulated account with a state of its own."""

    session: Session
    stack: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.session.environment()}

    @property
    def pulumi(self) -> Pulumi:
        log = (self.session.home / "log").open("a")
        return Pulumi(self.stack, self.session.project, self.session.environment(), log)

    def type(self, command: str) -> str:
        """A command of the page, on this stack and project."""
        there = command.replace("--cwd infra", f"--cwd {self.session.project}")
        done = subprocess.run(
            there.replace("--stack dev", f"--stack {self.stack}").split(),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def state(self) -> dict[str, Any]:
        path = self.session.home / f"state/.pulumi/stacks/trainyard/{self.stack}.json"
        try:
            found = json.loads(path.read_text())["checkpoint"]["latest"]
        except (OSError, ValueError):  # it is being written
            return {}
        return found or {}

    def pending(self) -> list[str]:
        """What is being made or changed, or was when the command died."""
        return [
            each["resource"]["urn"].split("::")[-1]
            for each in self.state().get("pending_operations") or []
        ]

    def urns(self) -> set[str]:
        """What the stack has."""
        return {each["urn"] for each in self.state().get("resources", [])}

    def names(self) -> set[str]:
        return {urn.split("::")[-1] for urn in self.urns()}

    def locks(self) -> list[Path]:
        found = (self.session.home / "state/.pulumi/locks").rglob("*.json")
        return [path for path in found if path.is_file()]

    def changes(self) -> dict[str, str]:
        """What a preview would do."""
        steps = json.loads(self.pulumi.api.preview(json=True).stdout)["steps"]
        return {step["urn"]: step["op"] for step in steps if step["op"] != "same"}

    def begin_up(self) -> "subprocess.Popen[bytes]":
        """`make up` in a terminal of its own, begun."""
        project = str(self.session.project)
        code = (
            "from pathlib import Path; from trainyard.aws.pulumi_cli import Pulumi; "
            f"Pulumi({self.stack!r}, Path({project!r})).up()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_for(self, condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
        while not condition():
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.02)


@pytest.fixture
def account(ministack: str, tmp_path: Path) -> Iterator[Cloud]:
    """The account's stack, not made yet."""
    if not shutil.which("pulumi"):
        pytest.skip("there is no pulumi on PATH: https://www.pulumi.com/docs/install/")
    session = Session(tmp_path, port=int(ministack.rsplit(":", 1)[1]))
    session.prepare(
        "account",
        kind="account",
        durable=False,
        stateBucket="acme-state",
        **REPOSITORY,
    )
    session.pulumi("account").make()
    cloud = Cloud(session, "account")
    yield cloud
    for _ in cloud.locks():
        cloud.type(CANCEL)
    cloud.pulumi.destroy()


@pytest.mark.pulumi
def test_a_killed_up_says_how_to_unlock_and_then_goes_on(account: Cloud) -> None:
    process = account.begin_up()
    github = "trainyard-account-github-"

    def only_generated_names() -> bool:  # a fixed one would block the next up, if it was made
        names = account.pending()
        return bool(names) and all(n.startswith(github) and "oidc" not in n for n in names)

    account.wait_for(only_generated_names, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert account.locks()
    assert account.pending()

    with pytest.raises(StackError) as stopped:
        account.pulumi.up()
    assert ". infra/use account && pulumi --cwd infra cancel`" in str(stopped.value)
    assert "make up STACK=account" in str(stopped.value)
    account.type(CANCEL)
    account.pulumi.up()
    assert "interrupted while creating" in (account.session.home / "log").read_text()
    account.type(FORGET)
    assert account.changes() == {}
    assert account.pending() == []


@pytest.mark.pulumi
def test_ctrl_c_ends_in_order_and_the_next_up_goes_on(account: Cloud) -> None:
    process = account.begin_up()
    account.wait_for(lambda: bool(account.pending()), process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) != 0
    assert account.locks() == []
    assert account.pending() == []
    account.pulumi.up()
    assert account.changes() == {}


# --- an environment whose data is protected -------------------------------------------------------
@pytest.fixture(scope="module")
def durable(ministack: str, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """An environment without images: its services are held back, its data is there."""
    if not shutil.which("pulumi"):
        pytest.skip("there is no pulumi on PATH: https://www.pulumi.com/docs/install/")
    session = Session(tmp_path_factory.mktemp("durable"), port=int(ministack.rsplit(":", 1)[1]))
    boto3.Session("test", "test", region_name="us-east-1").client(
        "iam", endpoint_url=ministack
    ).create_policy(PolicyName="trainyard-boundary", PolicyDocument=ANYTHING)
    session.prepare("dev", durable=True)
    session.pulumi("dev").make()
    cloud = Cloud(session, "dev")
    cloud.pulumi.up()
    return cloud


ANYTHING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
)


@pytest.mark.pulumi
def test_down_removes_nothing_of_a_durable_stack_and_says_what_to_do(durable: Cloud) -> None:
    before = durable.names()
    with pytest.raises(StackError) as refused:
        durable.pulumi.destroy()
    assert durable.names() == before
    for part in (
        DATABASE,
        "trainyard-dev-artifacts-bucket",
        "--exclude-protected",
        "operations.md",
    ):
        assert part in str(refused.value)


@pytest.mark.pulumi
def test_a_snapshots_name_never_replaces_a_protected_database(durable: Cloud) -> None:
    durable.session.prepare("dev", durable=True, databaseSnapshot="trainyard-dev-restore")
    try:
        with pytest.raises(StackError, match="marked for protection"):
            durable.pulumi.api.preview()
    finally:
        durable.session.prepare("dev", durable=True)


@pytest.mark.pulumi
def test_what_is_protected_stays_and_the_stack_comes_back_around_it(durable: Cloud) -> None:
    durable.type(KEEP_DATA)
    left = durable.names()
    assert {DATABASE, "trainyard-dev-artifacts-bucket", "trainyard-dev-network-vpc"} < left
    assert not [name for name in left if name.endswith(("-service", "-task", "-admin"))]
    kept, changed = durable.urns(), durable.changes()
    assert {name for urn in changed if (name := urn.split("::")[-1]).endswith("-service")}
    assert {changed[urn] for urn in changed.keys() & kept} <= {"update"}
    assert not [urn for urn in changed if urn.endswith(f"::{DATABASE}")]
