"""The policy pack as Pulumi runs it: a program that breaks every rule isn't previewed through."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.policy.rules import RULES
from tests.conftest import ROOT
from trainyard.rehearsal.emulator_session import Session

pytestmark = pytest.mark.emulator

PROGRAM = """
import json, pulumi_aws as aws
any_ = {"Version": "2012-10-17", "Statement": [
    {"Sid": "S", "Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
role = "some-role"
aws.s3.BucketPublicAccessBlock("b", bucket="bucket", block_public_acls=False)
aws.s3.BucketPolicy("b", bucket="bucket", policy=json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
     "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}]}))
aws.s3.BucketOwnershipControls("b", bucket="bucket", rule={"object_ownership": "ObjectWriter"})
aws.rds.Instance("d", identifier="d", engine="postgres", instance_class="db.t4g.micro",
                 allocated_storage=20, username="u", password="p" * 12,
                 publicly_accessible=True, skip_final_snapshot=True)
aws.sqs.Queue("q", name="q", sqs_managed_sse_enabled=False)
aws.kms.Key("k", description="k")
aws.iam.RolePolicy("r", role=role, policy=json.dumps(any_))
aws.vpc.SecurityGroupIngressRule("i", security_group_id="sg-1", cidr_ipv4="0.0.0.0/0",
                                 ip_protocol="tcp", from_port=22, to_port=22)
aws.cloudwatch.LogGroup("l", name="/l")
aws.ecs.TaskDefinition("t", family="t", container_definitions=json.dumps([
    {"name": "c", "image": "c:latest", "environment": [{"name": "DB_PASSWORD", "value": "x"}]}]))
"""


def test_every_rule_stops_a_preview(emulator: Session, tmp_path: Path) -> None:
    if not (ROOT / ".venv-policy").exists():
        pytest.skip("the policy pack has no environment: make .venv-policy/.policy")
    (tmp_path / "__main__.py").write_text(PROGRAM)
    (tmp_path / "Pulumi.yaml").write_text(
        "name: seeded\nruntime:\n  name: python\n  options:\n"
        f"    virtualenv: {ROOT / '.venv-infra'}\n"
    )
    environment = {
        **os.environ,
        **emulator.environment(),
        "PULUMI_BACKEND_URL": f"file://{tmp_path}",
    }

    def pulumi(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["pulumi", "--cwd", str(tmp_path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert pulumi("stack", "init", "prod").returncode == 0
    done = pulumi("preview", "--policy-pack", str(ROOT / "infra/policy"))
    assert done.returncode != 0
    caught = {rule.name for rule in RULES if f"{rule.name} " in done.stdout}
    assert caught == {rule.name for rule in RULES}, done.stdout[-5000:]
