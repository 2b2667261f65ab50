"""checkov on every stack, as the plan that Terraform would have made: no finding without a reason,
no reason without a finding, and defects that were put in are found.
"""

import json
import os
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.estimate.recorder import Recording, Resource
from tests.conftest import ROOT
from tests.infra import terraform_plan
from tests.infra.example_stacks import STACKS, stack

pytestmark = pytest.mark.audit
CHECKOV = ROOT / ".venv-checkov/bin/checkov"
REASONS = Path(__file__).with_name("checkov.yaml")
OPTIONS = ("--output", "json", "--compact", "--skip-download")
Findings = dict[str, set[tuple[str, str]]]


@dataclass(frozen=True)
class Suppression:
    """A finding that is left so, why, and until when."""

    check: str
    resources: str
    reason: str
    expires: date
    stacks: tuple[str, ...] = ()

    def covers(self, name: str, finding: tuple[str, str]) -> bool:
        """Whether it is about this finding in this stack."""
        check, address = finding
        return (
            check == self.check
            and name in (self.stacks or STACKS)
            and fnmatchcase(address, self.resources)
        )


SUPPRESSIONS = [Suppression(**each) for each in yaml.safe_load(REASONS.read_text())]


@dataclass(frozen=True)
class Seed:
    """A defect: the check that must find it, what is changed, and where it shows if elsewhere."""

    check: str
    kind: str
    name: str
    change: dict[str, Any]
    shows: str = ""
    stack: str = "standard"


def policy(**given: Any) -> str:
    statement = {"Sid": "S", "Effect": "Allow", "Action": ["s3:GetObject"], **given}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


EVERYONE, EVERYWHERE = {"AWS": "*"}, "0.0.0.0/0"
BLOCK, DATABASE, TASK = "BucketPublicAccessBlock", "rds/instance:Instance", "TaskDefinition"
ROLE = "arn:aws:iam::123456789012:role/both"
SSH = {"referencedSecurityGroupId": None, "cidrIpv4": EVERYWHERE, "fromPort": 22.0, "toPort": 22.0}
OPEN = {"protocol": "-1", "fromPort": 0.0, "toPort": 0.0, "self": True}
PUBLIC = {"subnets": ["subnet-0"], "assignPublicIp": True}
# An address under `shows` tells that checkov follows references from one resource to another.
SEEDS = [
    Seed("CKV_AWS_53", BLOCK, "dev-artifacts-public-access", {"blockPublicAcls": False}),
    Seed(
        "CKV2_AWS_6",
        BLOCK,
        "access-logs-public-access",
        {"blockPublicPolicy": False},
        shows="aws_s3_bucket.trainyard-dev-artifacts-access-logs-bucket",
    ),
    Seed(
        "CKV_AWS_70",
        "BucketPolicy",
        "dev-artifacts-policy",
        {"policy": policy(Principal="*", Resource="arn:aws:s3:::b/*")},
    ),
    Seed("CKV_AWS_16", DATABASE, "postgres", {"storageEncrypted": False}),
    Seed("CKV_AWS_17", DATABASE, "postgres", {"publiclyAccessible": True}),
    Seed(
        "CKV2_AWS_69",
        "ParameterGroup",
        "parameters",
        {"parameters": [{"name": "rds.force_ssl", "value": "0"}]},
        shows="aws_db_instance.trainyard-dev-database-postgres",
    ),
    Seed("CKV_AWS_24", "SecurityGroupIngressRule", "flows-mlflow-in", SSH),
    Seed(
        "CKV2_AWS_12",
        "DefaultSecurityGroup",
        "default",
        {"ingress": [OPEN]},
        shows="aws_vpc.trainyard-dev-network-vpc",
    ),
    Seed(
        "CKV2_AWS_11",
        "FlowLog",
        "flow-logs",
        {"vpcId": "vpc-of-others"},
        shows="aws_vpc.trainyard-dev-network-vpc",
    ),
    Seed("CKV_AWS_130", "ec2/subnet:Subnet", "private-0", {"mapPublicIpOnLaunch": True}),
    Seed("CKV_AWS_333", "ecs/service:Service", "worker-service", {"networkConfiguration": PUBLIC}),
    # Not CKV_AWS_334 and 335, on privileged containers and the host's processes: they look for keys
    # that ECS doesn't have there. The policy pack looks for `privileged`.
    Seed("CKV_AWS_249", TASK, "worker-definition", {"executionRoleArn": ROLE, "taskRoleArn": ROLE}),
    Seed(
        "CKV_AWS_336",
        TASK,
        "mlflow-definition",
        {"containerDefinitions": json.dumps([{"name": "c", "image": "i"}])},
    ),
    Seed("CKV_AWS_62", "RolePolicy", "flows-task", {"policy": policy(Action="*", Resource="*")}),
    Seed(
        "CKV_AWS_60",
        "Role",
        "worker-task",
        {"assumeRolePolicy": policy(Action="sts:AssumeRole", Principal=EVERYONE)},
    ),
    Seed("CKV_AWS_27", "Queue", "observer-queue", {"sqsManagedSseEnabled": False}),
    Seed("CKV_AWS_7", "kms/key:Key", "artifacts-key", {"enableKeyRotation": False}),
    Seed("CKV_AWS_66", "LogGroup", "worker-logs", {"retentionInDays": None}),
    Seed(
        "CKV_AWS_51",
        "Repository",
        "images-flow",
        {"imageTagMutability": "MUTABLE"},
        stack="account",
    ),
    Seed(
        "CKV_AWS_163",
        "Repository",
        "images-worker",
        {"imageScanningConfiguration": {"scanOnPush": False}},
        stack="account",
    ),
]


def seeded(name: str) -> Recording:
    """A stack with all of its defects."""
    made, changes = stack(name), dict[str, dict[str, Any]]()
    for seed in SEEDS:
        if seed.stack == name:
            found = made.one(seed.kind, seed.name)
            changes.setdefault(f"{found.type} {found.name}", {}).update(seed.change)
    return Recording(
        [
            replace(r, inputs={**r.inputs, **changes.get(f"{r.type} {r.name}", {})})
            for r in made.resources
        ]
    )


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What checkov says of every stack, and of those with defects: its check, and where."""
    if not CHECKOV.exists():
        pytest.skip("checkov has no environment: make .venv-checkov/.checkov")
    folder = tmp_path_factory.mktemp("plans")
    stacks = {name: stack(name) for name in STACKS}
    stacks |= {f"{name}-seeded": seeded(name) for name in ("standard", "account")}
    plans = {name: terraform_plan.plan(made) for name, made in stacks.items()}
    for name, plan in plans.items():
        (folder / name).mkdir()  # references end at a folder's edge
        (folder / name / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [CHECKOV, "--directory", folder, "--framework", "terraform_plan", *OPTIONS],
        cwd=folder,  # away from a .checkov.yaml of the user's
        env={**os.environ, "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    resources = [r for p in plans.values() for r in p["planned_values"]["root_module"]["resources"]]
    assert said["summary"]["resource_count"] == len(resources), "checkov didn't read everything"
    out: Findings = {name: set() for name in stacks}
    for each in said["results"]["failed_checks"]:
        out[each["file_path"].split("/")[1]].add((each["check_id"], each["resource"]))
    return out


@pytest.mark.parametrize("name", STACKS)
def test_nothing_is_found_without_a_reason_to_leave_it(name: str, findings: Findings) -> None:
    left = [
        finding
        for finding in sorted(findings[name])
        if not any(each.covers(name, finding) for each in SUPPRESSIONS)
    ]
    assert left == [], f"mend it in infra/, or give a reason in {REASONS.relative_to(ROOT)}"


@pytest.mark.parametrize("each", SUPPRESSIONS, ids=lambda each: f"{each.check}-{each.resources}")
def test_a_reason_without_a_finding_goes(each: Suppression, findings: Findings) -> None:
    found = {n for n in STACKS if any(each.covers(n, finding) for finding in findings[n])}
    rest = set(each.stacks or STACKS) if not found else set(each.stacks) - found
    assert not rest, f"not found in {sorted(rest)}: remove it from {REASONS.relative_to(ROOT)}"


@pytest.mark.parametrize("each", SUPPRESSIONS, ids=lambda each: f"{each.check}-{each.resources}")
def test_reasons_are_looked_at_again(each: Suppression) -> None:
    assert each.reason
    assert datetime.now(UTC).date() <= each.expires, (
        f"{each.check} was left until {each.expires}. If its reason still holds, "
        f"give it a new date in {REASONS.relative_to(ROOT)}; else mend what checkov finds"
    )


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.check}-{seed.name}")
def test_a_defect_is_found(seed: Seed, findings: Findings) -> None:
    where = terraform_plan.address(stack(seed.stack).one(seed.kind, seed.name))
    finding = (seed.check, seed.shows or where)
    assert finding in findings[f"{seed.stack}-seeded"]
    assert finding not in findings[seed.stack], "it was there before the defect"


@pytest.mark.parametrize(
    ("kind", "inputs", "unknown"),
    [
        ("aws:eks/cluster:Cluster", {}, "aws:eks/cluster:Cluster"),
        ("aws:s3/bucket:Bucket", {"grants": ["everyone"]}, "grants"),
        ("aws:s3/bucket:Bucket", {"website": {"indexDocument": "i"}}, "website"),
        ("aws:s3/bucket:Bucket", {"rules": [{"transitions": []}]}, "transitions"),
    ],
)
def test_what_has_no_name_in_terraform_stops(
    kind: str, inputs: dict[str, Any], unknown: str
) -> None:
    resource = Resource(kind, "r", inputs, "", False, (), (), (), True, "", "r-id", {})
    with pytest.raises(ValueError, match=unknown):
        terraform_plan.plan(Recording([resource]))
