"""A real `pulumi up`, on the emulator, with the deploy role's credentials and IAM enforced.

A stack costs minutes, so the tests of a mode share one, and run in the order of its life. Images
are stubs: they answer health checks, and their migrations succeed. What the real ones do is another
rehearsal's subject.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest

from infra import stacks
from infra.outputs import StackOutputs
from infra.rehearsal.session import ROOT, Session, inventory

pytestmark = pytest.mark.timeout(1200)

STUB = """
import http.server, sys, threading
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
if any(a.startswith("infra.") for a in sys.argv):
    print("stub:", *sys.argv[1:]); sys.exit(0)
servers = [http.server.ThreadingHTTPServer(("0.0.0.0", p), Ok) for p in (4200, 5000, 8080)]
[threading.Thread(target=s.serve_forever).start() for s in servers]
"""
# Properties that the emulator reads back otherwise than it was told, by type. A refresh shows these
# and nothing else; a test holds the list to what is needed.
READ_BACK = {
    "aws:cloudwatch/metricAlarm:MetricAlarm": {"alarmActions", "okActions"},
    "aws:rds/instance:Instance": {"enabledCloudwatchLogsExports"},
    # not the emulator's: `make up` wrote its note there, as it should
    "aws:ssm/parameter:Parameter": {"version"},
}
MODES = {
    "minimal-self-hosted": {"profile": "minimal", "prefect": "self-hosted"},
    "standard-cloud": {
        "profile": "standard",
        "prefect": "cloud",
        "prefectApiUrl": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
    },
}


@dataclass
class Rehearsed:
    """A stack on the emulator, and what was seen of its life so far."""

    session: Session
    mode: dict[str, Any]
    credentials: dict[str, str]
    root: Any
    before: dict[str, list[str]]
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def pulumi(self) -> stacks.Pulumi:
        environment = {**self.session.environment(), **self.credentials}
        return stacks.Pulumi("rehearsal", self.session.project, environment)

    def set(self, **settings: Any) -> None:
        self.settings |= settings
        self.session.prepare("rehearsal", **self.mode, **self.settings)

    def run(self, *arguments: str) -> str:
        """`pulumi ARGUMENTS`, and what it wrote."""
        started = time.monotonic()
        done = subprocess.run(
            ["pulumi", "--cwd", str(self.session.project), *arguments, "--stack", "rehearsal"],
            env={**os.environ, **self.pulumi.environment},
            capture_output=True,
            text=True,
        )
        self.seconds[arguments[0]] = time.monotonic() - started
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    def changes(self, *arguments: str) -> dict[str, str]:
        """What a preview would do: resource name -> operation, where there is anything to do."""
        steps = json.loads(self.run(*arguments, "--json"))["steps"]
        return {s["urn"].rsplit("::", 1)[1]: s["op"] for s in steps if s["op"] != "same"}

    def changes_with(self, **settings: Any) -> dict[str, str]:
        """What a preview would do with other settings."""
        kept = dict(self.settings)
        self.set(**settings)
        try:
            return self.changes("preview")
        finally:
            self.settings = kept
            self.set()

    def connect(self, outputs: dict[str, Any]) -> stacks.Boto:
        """AWS, as the deploy role."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        session = boto3.Session(*[self.credentials[n] for n in names], region_name="us-east-1")
        return stacks.Boto(session, outputs["tasks"], clock=lambda seconds: time.sleep(0.3))


@pytest.fixture(scope="session")
def image(emulator: Session, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stub's id."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub.py").write_text(STUB)
    (folder / "Dockerfile").write_text(
        f'FROM {emulator.base}\nCOPY stub.py /\nENTRYPOINT ["python", "-u", "/stub.py"]\n'
    )
    return emulator.docker("build", "-q", str(folder)).stdout.strip()


@pytest.fixture(scope="module", params=MODES)
def rehearsed(request: pytest.FixtureRequest, emulator: Session, image: str) -> Iterator[Rehearsed]:
    root = boto3.Session("test", "test", region_name="us-east-1")
    mode: dict[str, Any] = {**MODES[request.param], "durable": False}
    if mode["prefect"] == "cloud":
        secret = root.client("secretsmanager").create_secret(
            Name="trainyard-key", SecretString="pnu_x"
        )
        mode["prefectApiKeySecretArn"] = secret["ARN"]
    images = {"flowImage": image, "workerImage": image, "mlflowImage": image}
    environment = emulator.begin(**mode, **images)
    credentials = {k: v for k, v in environment.items() if k.startswith("AWS_")}
    stack = Rehearsed(emulator, mode, credentials, root, inventory(root), settings=images)
    try:
        yield stack
    finally:
        print(request.param, {k: round(v, 1) for k, v in stack.seconds.items()})
        stack.run("destroy", "--yes", "--skip-preview")
        stack.run("stack", "rm", "--yes")
        if "prefectApiKeySecretArn" in mode:
            root.client("secretsmanager").delete_secret(
                SecretId=mode["prefectApiKeySecretArn"], ForceDeleteWithoutRecovery=True
            )


def test_a_new_stack_comes_up_in_order(rehearsed: Rehearsed) -> None:
    registered: list[StackOutputs] = []
    started = time.monotonic()
    stacks.up(rehearsed.pulumi, rehearsed.connect, registered.append)
    rehearsed.seconds["make up"] = time.monotonic() - started
    outputs = rehearsed.pulumi.outputs()
    assert outputs["held_back"] == []
    assert len(registered) == (rehearsed.mode["prefect"] == "cloud")
    ecs = rehearsed.root.client("ecs")
    for service in outputs["services"].values():
        answer = ecs.describe_services(cluster=outputs["tasks"]["cluster"], services=[service])
        assert [s["runningCount"] for s in answer["services"]] == [1], service


def test_the_parameter_holds_the_outputs(rehearsed: Rehearsed) -> None:
    found = rehearsed.root.client("ssm").get_parameter(Name="/trainyard/rehearsal/outputs")
    kept = StackOutputs.model_validate_json(found["Parameter"]["Value"])
    assert kept == StackOutputs.model_validate(rehearsed.pulumi.outputs()["trainyard"])
    assert kept.work_pool.type == "ecs"


def test_a_second_up_changes_nothing(rehearsed: Rehearsed) -> None:
    assert rehearsed.changes("preview") == {}
    output = rehearsed.run("up", "--yes", "--skip-preview")
    assert re.search(r"Resources:\s+\d+ unchanged\s", output), output[-2000:]


def test_no_rule_of_the_policy_pack_is_broken(rehearsed: Rehearsed) -> None:
    if not (ROOT / ".venv-policy").exists():
        pytest.skip("the policy pack has no environment: make .venv-policy/.policy")
    output = rehearsed.run("preview", "--policy-pack", str(ROOT / "infra/policy"))
    assert "trainyard@v" in output, output[-2000:]
    assert "mandatory" not in output


def test_a_changed_setting_changes_what_it_should_and_nothing_else(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes_with(logDays=14)
    assert set(changed.values()) == {"update"}
    assert all(name.endswith(("-logs", "-logs-lifecycle")) for name in changed), changed


def test_a_new_password_changes_who_uses_it(rehearsed: Rehearsed) -> None:
    changed = rehearsed.changes_with(databasePasswordVersion=2)
    users = {"mlflow"} | ({"prefect"} if rehearsed.mode["prefect"] == "self-hosted" else set())
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
    assert drift(rehearsed.run("refresh", "--preview-only", "--diff")) == READ_BACK


def drift(diff: str) -> dict[str, set[str]]:
    """What a refresh would change, from what it prints: type -> properties.

    (Its JSON holds the state as it was twice.) An empty list or map that appears is no drift.
    """
    found: dict[str, set[str]] = {}
    kind, depth = "", 0
    for line in diff.splitlines():
        header = re.match(r"^( *)[~-] (aws:\S+): \((update|delete)\)", line)
        changed = re.match(rf"^ {{{depth + 2}}}[~+-] (\w+) *: (.*)$", line)
        if header:
            kind, depth = header[2], len(header[1])
        elif changed and changed[2] not in ("[]", "{}"):
            found.setdefault(kind, set()).add(changed[1])
    return found


def test_destroy_leaves_nothing(rehearsed: Rehearsed) -> None:
    rehearsed.run("destroy", "--yes", "--skip-preview")
    after = inventory(rehearsed.root)
    assert {k: v for k, v in after.items() if v != rehearsed.before[k]} == {}
    assert rehearsed.session.containers() == []
