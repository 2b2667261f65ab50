"""A real `pulumi up`, on the emulator, with the deploy role's credentials and IAM enforced.

A stack costs minutes, so the tests of a mode share one, and run in the order of its life.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.drift import look
from infra.outputs import StackOutputs
from infra.rehearsal.drills import run_drill
from infra.rehearsal.rehearse import MODES, Rehearsal, check_rights, check_services, train
from infra.rehearsal.session import ROOT, Session

pytestmark = pytest.mark.timeout(1200)

# Properties that the emulator reads back otherwise than it was told, by type. A refresh shows these
# and nothing else; a test holds the list to what is needed.
READ_BACK = {
    "cloudwatch/metricAlarm": {"alarmActions", "okActions"},
    "rds/instance": {"enabledCloudwatchLogsExports"},
}
# The quickest drills, of each kind one. All of them are `make drills`: over twenty minutes.
DRILLED = ("flow-killed", "flow-stopped", "image-missing")


@dataclass
class Rehearsed:
    """A stack on the emulator, and what was seen of its life so far."""

    rehearsal: Rehearsal
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, *arguments: str) -> str:
        """`pulumi ARGUMENTS`, and what it wrote."""
        started = time.monotonic()
        output = self.rehearsal.pulumi.run(*arguments)
        self.seconds[arguments[0]] = time.monotonic() - started
        return output

    def changes(self, **settings: Any) -> dict[str, str]:
        """What a preview with other settings would do: resource name -> operation, if any."""
        kept = dict(self.rehearsal.settings)
        self.rehearsal.set(**settings)
        try:
            steps = json.loads(self.run("preview", "--json"))["steps"]
        finally:
            self.rehearsal.settings = kept
            self.rehearsal.set()
        return {s["urn"].rsplit("::", 1)[1]: s["op"] for s in steps if s["op"] != "same"}


@pytest.fixture(scope="module", params=MODES)
def rehearsed(
    request: pytest.FixtureRequest, emulator: Session, image_ids: dict[str, str]
) -> Iterator[Rehearsed]:
    rehearsal = Rehearsal(emulator, request.param)
    rehearsal.open(**image_ids)
    stack = Rehearsed(rehearsal)
    try:
        yield stack
    finally:
        print(request.param, {k: round(v, 1) for k, v in stack.seconds.items()})
        rehearsal.forget()


def test_a_new_stack_comes_up_in_order(rehearsed: Rehearsed) -> None:
    started = time.monotonic()
    rehearsed.rehearsal.up()
    rehearsed.seconds["make up"] = time.monotonic() - started
    outputs = rehearsed.rehearsal.pulumi.outputs()
    assert outputs["held_back"] == []
    ecs = rehearsed.rehearsal.root.client("ecs")
    for service in outputs["services"].values():
        answer = ecs.describe_services(cluster=outputs["tasks"]["cluster"], services=[service])
        assert [s["runningCount"] for s in answer["services"]] == [1], service


def test_the_parameter_holds_the_outputs(rehearsed: Rehearsed) -> None:
    found = rehearsed.rehearsal.root.client("ssm").get_parameter(
        Name="/trainyard/rehearsal/outputs"
    )
    kept = StackOutputs.model_validate_json(found["Parameter"]["Value"])
    assert kept == rehearsed.rehearsal.outputs
    assert kept.work_pool.type == "ecs"


def test_a_second_up_changes_nothing(rehearsed: Rehearsed) -> None:
    assert rehearsed.changes() == {}
    output = rehearsed.run("up", "--yes", "--skip-preview")
    assert re.search(r"Resources:\s+\d+ unchanged\s", output), output[-2000:]


def test_no_rule_of_the_policy_pack_is_broken(rehearsed: Rehearsed) -> None:
    if not (ROOT / ".venv-policy").exists():
        pytest.skip("the policy pack has no environment: make .venv-policy/.policy")
    output = rehearsed.run("preview", "--policy-pack", str(ROOT / "infra/policy"))
    assert "trainyard@v" in output, output[-2000:]
    assert "mandatory" not in output


def test_a_changed_setting_changes_what_it_should_and_nothing_else(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes(logDays=14)
    assert set(changed.values()) == {"update"}
    assert all(name.endswith(("-logs", "-logs-lifecycle")) for name in changed), changed


def test_a_new_password_changes_who_uses_it(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes(databasePasswordVersion=2)
    users = {"mlflow"} | ({"prefect"} if rehearsed.rehearsal.mode == "self-hosted" else set())
    replaced = {f"{user}{task}-definition" for user in users for task in ("", "-migrate")}
    updated = {f"{user}-service" for user in users} | {"database-postgres"}
    made = {"database-password-v2"}
    removed = {"database-password-v1"}
    prefix = "trainyard-rehearsal-"
    operations = {
        operation: {n.removeprefix(prefix) for n, o in changed.items() if o == operation}
        for operation in ("create", "delete", "update")
    }
    assert operations == {"create": made, "delete": removed, "update": updated}
    others = {n.removeprefix(prefix) for n in changed} - made - removed - updated
    assert others == replaced


def test_nothing_has_drifted_but_what_the_emulator_reads_back(rehearsed: Rehearsed) -> None:
    found: dict[str, set[str]] = {}
    for change in look(rehearsed.rehearsal.pulumi).changes:
        found.setdefault(change.kind, set()).update(change.properties)
    assert found == READ_BACK


def test_what_runs_is_as_it_should_be(rehearsed: Rehearsed) -> None:
    check_services(rehearsed.rehearsal)


def test_the_flows_are_deployed_and_train_a_champion(rehearsed: Rehearsed) -> None:
    rehearsed.rehearsal.deploy()
    print(train(rehearsed.rehearsal))


def test_roles_may_do_what_was_used_and_nothing_else(rehearsed: Rehearsed) -> None:
    check_rights(rehearsed.rehearsal)


@pytest.mark.parametrize("name", DRILLED)
def test_a_drill_ends_as_promised(rehearsed: Rehearsed, name: str) -> None:
    if rehearsed.rehearsal.mode != "self-hosted":
        pytest.skip("Prefect Cloud's side isn't ours to break: the drills run self-hosted")
    print(run_drill(rehearsed.rehearsal, name))


def test_destroy_leaves_nothing(rehearsed: Rehearsed) -> None:
    started = time.monotonic()
    rehearsed.rehearsal.destroy()
    rehearsed.seconds["destroy"] = time.monotonic() - started
