"""`make rehearse` and `make drills`, typed, and what else a stack goes through: a real `pulumi up`
on the emulator, with the deploy role's credentials and IAM enforced.

A stack costs minutes, so the tests share one, and run in the order of its life. It has a Prefect
server of its own; the one with Prefect Cloud is test_first_push.py.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import StateType

from tests.conftest import ROOT, STAMPS
from trainyard.aws.drift import look
from trainyard.aws.pulumi_cli import POLICY_PACK
from trainyard.contract.naming import REHEARSAL
from trainyard.contract.outputs import StackOutputs
from trainyard.contract.release import Images, Release
from trainyard.delivery import images
from trainyard.delivery.release import Steps, release, rollback
from trainyard.rehearsal.drill_runner import REPORT
from trainyard.rehearsal.emulator_session import CONTAINER, NETWORK, Session
from trainyard.rehearsal.rehearse import check_rights
from trainyard.rehearsal.stack import Rehearsal
from trainyard.tools.docker import docker
from trainyard.tools.errors import StackError

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(1800)]

# Properties that the emulator reads back otherwise than it was told, by type. A refresh shows these
# and nothing else; a test holds the list to what is needed.
READ_BACK = {
    "cloudwatch/metricAlarm": {"alarmActions", "okActions"},
    "rds/instance": {"enabledCloudwatchLogsExports"},
}


@dataclass
class Rehearsed:
    """A stack on the emulator, and what was seen of its life so far."""

    rehearsal: Rehearsal
    seconds: dict[str, float] = field(default_factory=dict)

    def preview(self, **options: Any) -> str:
        """What `pulumi preview` says."""
        started = time.monotonic()
        output = self.rehearsal.pulumi.api.preview(**options).stdout
        self.seconds["preview"] = time.monotonic() - started
        return output

    def deliver(self, command: Callable[..., None], *given: Release) -> Steps:
        """`make release` or `make rollback`."""
        steps = Steps("rehearsal")
        try:
            command(self.rehearsal.pulumi, *given, steps, self.rehearsal.connect)
        finally:
            steps.show()
        return steps

    def changes(self, **settings: Any) -> dict[str, str]:
        """What a preview with other settings would do: resource name -> operation, if any."""
        session = self.rehearsal.session
        kept = session.settings()
        session.prepare(REHEARSAL, **{**kept, **settings})
        try:
            steps = json.loads(self.preview(json=True))["steps"]
        finally:
            session.prepare(REHEARSAL, **kept)
        return {s["urn"].rsplit("::", 1)[1]: s["op"] for s in steps if s["op"] != "same"}


@pytest.fixture(scope="module")
def table(emulator: Session) -> str:
    """What `make rehearse KEEP=1` says; the stack is up after it."""
    return make("rehearse", "KEEP=1")


@pytest.fixture(scope="module")
def rehearsed(emulator: Session, table: str) -> Iterator[Rehearsed]:
    stack = Rehearsed(Rehearsal(emulator, credentials=emulator.deploy_role()))
    yield stack
    print({k: round(v, 1) for k, v in stack.seconds.items()})


def make(*words: str) -> str:
    """Type a command of make's, as README.md and CONTRIBUTING.md say; give what it says."""
    process = subprocess.Popen(
        ["make", *STAMPS, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=1500)
    finally:
        if process.poll() is None:  # as Ctrl-C: it ends what it began
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    print(said)
    assert process.returncode == 0, said
    return said


def done(said: str) -> list[str]:
    """The steps, or drills, that went well."""
    return re.findall(r"^✓ (.{28})", said, re.MULTILINE)


def test_a_rehearsal_goes_through_the_steps_of_the_readme(table: str) -> None:
    steps = done((ROOT / "README.md").read_text())
    assert [*done(table), f"{'make down':28}"] == steps  # that one comes last of all


def test_each_service_runs_once(rehearsed: Rehearsed) -> None:
    outputs = rehearsed.rehearsal.made
    ecs = rehearsed.rehearsal.aws("ecs")
    for service in outputs["services"].values():
        answer = ecs.describe_services(cluster=outputs["tasks"]["cluster"], services=[service])
        assert [s["runningCount"] for s in answer["services"]] == [1], service


def test_it_is_reached_from_this_machine_only(rehearsed: Rehearsed) -> None:
    names = [CONTAINER, *rehearsed.rehearsal.session.containers(running=True)]
    published = docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", *names).stdout
    ports = [json.loads(line) for line in published.splitlines()]
    bound = [each for found in ports for bindings in found.values() for each in bindings or []]
    assert {each["HostIp"] for each in bound} == {"127.0.0.1"}


def test_the_parameter_holds_the_outputs(rehearsed: Rehearsed) -> None:
    found = rehearsed.rehearsal.aws("ssm").get_parameter(Name="/trainyard/rehearsal/outputs")
    kept = StackOutputs.model_validate_json(found["Parameter"]["Value"])
    assert kept == rehearsed.rehearsal.outputs
    assert kept.work_pool.type == "ecs"


RUN_ELSEWHERE = {
    "taxi-train": "by the rehearsal",
    "smoke": "at the end of each release",
    "rollback": "its champion is the first one: the rehearsal takes back a second one",
    "iris": "its image has DVC: tests/e2e/images",
}


def test_every_other_deployment_runs_as_a_container(rehearsed: Rehearsed) -> None:
    """Three at a time: a small machine that starts them all is too busy to answer them."""
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    others = {each["name"] for each in listed} - RUN_ELSEWHERE.keys()
    with rehearsed.rehearsal.prefect() as client:
        deployments = [each for each in client.read_deployments() if each.name in others]
        assert len(deployments) == len(others)
        # scoring needs a champion, and monitoring scores
        late = ("scoring", "monitoring")
        waves = [[each for each in deployments if not {*late} & {*each.tags}]]
        waves += [[each for each in deployments if tag in each.tags] for tag in late]
        ended = []
        for wave in waves:
            for start in range(0, len(wave), 3):
                some = wave[start : start + 3]
                runs = [client.create_flow_run_from_deployment(each.id) for each in some]
                ended += [rehearsed.rehearsal.wait_for(client, run, minutes=12) for run in runs]
    assert [run.state for run in ended if run.state_type is not StateType.COMPLETED] == []
    # one of them wrote to the flows' own database, as its user
    label = "label=db_id=trainyard-rehearsal-database"
    (database,) = docker("ps", "-q", "-f", label).stdout.split()
    psql = ("exec", database, "psql", "-U", "trainyard", "-d", "flows", "-tAc")
    owner = docker(*psql, "SELECT tableowner FROM pg_tables WHERE tablename = 'transactions'")
    assert owner.stdout.split() == ["flows"]
    assert int(docker(*psql, "SELECT count(*) FROM transactions").stdout) > 0


def test_no_rule_of_the_policy_pack_is_broken(rehearsed: Rehearsed) -> None:
    if not (ROOT / ".venv-policy").exists():
        pytest.skip("the policy pack has no environment: make .venv-policy/.policy")
    output = rehearsed.preview(policy_packs=[POLICY_PACK])
    assert "trainyard@v" in output, output[-2000:]
    assert "mandatory" not in output


def test_a_changed_setting_changes_what_it_should_and_nothing_else(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes(logDays=14)
    assert set(changed.values()) == {"update"}
    assert all(name.endswith(("-logs", "-logs-lifecycle")) for name in changed), changed


def test_a_new_password_changes_who_uses_it(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes(databasePasswordVersion=2)
    users = {"mlflow", "prefect"}
    replaced = {f"{user}{task}-definition" for user in users for task in ("", "-migrate")}
    replaced.add("flows-database-migrate-definition")
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


def test_a_release_takes_the_place_of_pinned_images(
    rehearsed: Rehearsed, image_ids: dict[str, str]
) -> None:
    rehearsed.rehearsal.session.unpin_images()
    rehearsed.deliver(release, release_of(1, image_ids))
    assert rehearsed.changes() == {}


def test_the_same_release_again_is_nothing_to_deploy(
    rehearsed: Rehearsed, image_ids: dict[str, str]
) -> None:
    steps = rehearsed.deliver(release, release_of(1, image_ids))
    assert "nothing to deploy" in steps.title
    assert steps.rows == []


def test_a_release_whose_smoke_run_fails_is_rolled_back(
    rehearsed: Rehearsed, image_ids: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    bad = release_of(2, {**image_ids, "flow": broken_flow_image()})
    with pytest.raises(StackError):
        rehearsed.deliver(release, bad)
    assert "broken on purpose" in "".join(capfd.readouterr())
    assert rehearsed.rehearsal.pulumi.outputs()["flow_image"] == bad.images.flow
    steps = rehearsed.deliver(rollback)
    assert [what for what, *_ in steps.rows] == ["the stack", "deployments", "smoke run"]
    assert rehearsed.rehearsal.pulumi.outputs()["flow_image"] == image_ids["flow"]
    assert rehearsed.changes() == {}  # nor does the next `make up` change what runs


def release_of(number: int, image_ids: dict[str, str]) -> Release:
    """A release of this clone's commit, with images that no registry needs to hold."""
    commit = images.current_commit().revision.split("-")[0]
    return Release(commit=commit, tree=f"{number:040x}", images=Images(**image_ids))


def broken_flow_image() -> str:
    """This clone's flow image, but for the smoke flow, which fails."""
    return docker(
        *("build", "-q", "-"),
        stdin=f"""
FROM trainyard-flow:{images.current_commit().tag}
USER 0
RUN cd /app/flows/smoke && rm -r __pycache__ \\
    && sed -i 's/^    settings, run = .*/    raise RuntimeError("broken on purpose")/' smoke.py
USER 1000:1000
""",
    ).stdout.strip()


def test_roles_may_do_what_was_used_and_nothing_else(rehearsed: Rehearsed) -> None:
    check_rights(rehearsed.rehearsal)


def test_status_finds_the_stack_that_is_up(rehearsed: Rehearsed) -> None:
    assert '"held_back": []' in make("status", "STACK=rehearsal")


def test_todays_drills_end_as_promised_and_are_written_down(
    rehearsed: Rehearsed, capfd: pytest.CaptureFixture[str]
) -> None:
    before = REPORT.read_text()
    REPORT.write_text(re.sub(r"\d{4}-\d\d-\d\d, \w+ \|$", "never |", before, flags=re.MULTILINE))
    try:
        said = make("drills", "ONLY=today", "KEEP=1")
        after = REPORT.read_text()
    finally:
        REPORT.write_text(before)
    todays = re.findall(r"^drills: (.*)$", said, re.MULTILINE)[0].split(", ")
    with capfd.disabled():
        print(f"\ndrills of today: {', '.join(todays)}")
    assert {name.strip() for name in done(said)} >= set(todays)
    ran = [row for row in after.splitlines() if row.endswith(" |") and "never |" not in row]
    assert sorted(re.findall(r"\(`([a-z-]+)`\) \|", "\n".join(ran))) == sorted(todays)


def test_down_leaves_nothing(rehearsed: Rehearsed) -> None:
    rehearsed.rehearsal.destroy()  # a rehearsal's last step: it fails where something is left
    make("down", "STACK=rehearsal")
    assert CONTAINER not in docker("ps", "-a", "--format", "{{.Names}}").stdout
    assert rehearsed.rehearsal.session.containers() == []
    assert NETWORK not in docker("network", "ls", "--format", "{{.Name}}").stdout.split()
