"""The policy pack: each rule lets every stack pass, and catches a violation that was put in."""

import json
from typing import Any

import pytest

from infra.policy import rules
from tests.infra.example_stacks import STACKS, stack
from tests.infra.invariants import faults

BUCKET = ["arn:aws:s3:::b", "arn:aws:s3:::b/*"]
CLEAR_TEXT = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": BUCKET,
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}


def statement(**given: Any) -> str:
    whole = {"Sid": "S", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn"]}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**whole, **given}]})


def container(**given: Any) -> str:
    whole = {
        "name": "worker",
        "image": "r@sha256:00",
        "user": "1000",
        "readonlyRootFilesystem": True,
        "environment": [],
        "secrets": [],
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
    }
    return json.dumps([{**whole, **given}])


SEEDED: list[tuple[str, dict[str, Any]]] = [
    ("bucket-public-access-blocked", {"blockPublicAcls": True}),
    ("bucket-tls-only", {"policy": statement(Principal="*")}),
    ("bucket-tls-only", {"policy": statement(**{**CLEAR_TEXT, "Principal": {"AWS": "arn"}})}),
    ("bucket-tls-only", {"policy": statement(**{**CLEAR_TEXT, "Action": "s3:GetObject"})}),
    ("bucket-tls-only", {"policy": statement(**{**CLEAR_TEXT, "Resource": BUCKET[:1]})}),
    ("bucket-acls-off", {"rule": {"objectOwnership": "ObjectWriter"}}),
    ("database-encrypted", {"storageEncrypted": False}),
    ("database-private", {"publiclyAccessible": True}),
    ("queue-encrypted", {"name": "q"}),
    ("key-rotates", {"description": "k"}),
    ("iam-narrow", {"policy": statement(Action=["s3:*"])}),
    ("iam-narrow", {"policy": statement(Action="*")}),
    ("iam-narrow", {"policy": statement(Resource="*")}),
    ("iam-narrow", {"policy": statement(Principal="*")}),
    ("iam-narrow", {"assumeRolePolicy": statement(Principal={"AWS": ["*"]})}),
    ("no-public-ingress", {"cidrIpv4": "0.0.0.0/0"}),
    ("no-public-ingress", {"ingress": [{"cidrBlocks": ["0.0.0.0/0"]}]}),
    ("log-ends", {"name": "/x"}),
    ("tagged", {"tags": {"Project": "trainyard"}}),
    (
        "no-plain-secret",
        {"containerDefinitions": container(environment=[{"name": "DB_PASSWORD", "value": "x"}])},
    ),
    (
        "no-plain-secret",
        {"containerDefinitions": container(secrets=[{"name": "KEY", "valueFrom": "arn:aws:ssm:"}])},
    ),
    ("container-confined", {"containerDefinitions": container(user="root")}),
    ("container-confined", {"containerDefinitions": container(privileged=True)}),
    ("container-confined", {"containerDefinitions": container(linuxParameters={})}),
    (
        "container-confined",
        {
            "containerDefinitions": container(
                linuxParameters={"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}
            )
        },
    ),
    ("container-confined", {"containerDefinitions": container(readonlyRootFilesystem=False)}),
    ("image-by-digest", {"containerDefinitions": container(image="r:latest")}),
]


@pytest.mark.parametrize(("name", "properties"), SEEDED)
def test_a_violation_is_caught(name: str, properties: dict[str, Any]) -> None:
    (rule,) = [each for each in rules.RULES if each.name == name]
    assert list(rule.check(properties))


def test_every_rule_has_a_seeded_violation_and_its_ids() -> None:
    assert {name for name, _ in SEEDED} == {rule.name for rule in rules.RULES}
    assert all(rule.ids for rule in rules.RULES)


def test_what_the_violations_were_put_into_is_right() -> None:
    right = {"policy": statement(), "containerDefinitions": container()}
    names = ("iam-narrow", "no-plain-secret", "container-confined", "image-by-digest")
    assert [f for r in rules.RULES if r.name in names for f in r.check(right)] == []
    (tls_only,) = [rule for rule in rules.RULES if rule.name == "bucket-tls-only"]
    assert list(tls_only.check({"policy": statement(**CLEAR_TEXT)})) == []


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_passes(name: str) -> None:
    assert faults(stack(name)) == []


def test_every_rule_looks_at_something() -> None:
    types = {resource.type for name in STACKS for resource in stack(name).resources}
    assert not [rule.name for rule in rules.RULES if types.isdisjoint(rule.types)]


def test_every_policy_of_a_stack_is_judged_but_for_keys_which_are_their_owners() -> None:
    (narrow,) = [rule for rule in rules.RULES if rule.name == "iam-narrow"]
    found = {
        resource.type
        for name in STACKS
        for resource in stack(name).resources
        if resource.plain.keys() & {"policy", "assumeRolePolicy"}
    }
    assert found - set(narrow.types) == {
        "aws:kms/key:Key",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
    }
