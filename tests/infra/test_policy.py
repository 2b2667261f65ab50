"""The policy pack: each rule lets every stack pass, and catches a violation that was put in."""

import json
from typing import Any

import pytest

from infra.iam import UNSCOPED
from infra.policy import rules
from tests.infra.test_stacks import STACKS, stack


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
    }
    return json.dumps([{**whole, **given}])


SEEDED: list[tuple[str, dict[str, Any]]] = [
    ("bucket-public-access-blocked", {"blockPublicAcls": True}),
    ("bucket-tls-only", {"policy": statement(Principal="*")}),
    ("bucket-acls-off", {"rule": {"objectOwnership": "ObjectWriter"}}),
    ("database-encrypted", {"storageEncrypted": False}),
    ("database-private", {"publiclyAccessible": True}),
    ("queue-encrypted", {"name": "q"}),
    ("key-rotates", {"description": "k"}),
    ("iam-narrow", {"policy": statement(Action=["s3:*"])}),
    ("iam-narrow", {"policy": statement(Action="*")}),
    ("iam-narrow", {"policy": statement(Resource="*")}),
    ("no-public-ingress", {"cidrIpv4": "0.0.0.0/0"}),
    ("no-public-ingress", {"ingress": [{"cidrBlocks": ["0.0.0.0/0"]}]}),
    ("log-ends", {"name": "/x"}),
    ("tagged", {"tags": {"Project": "trainyard"}}),
    (
        "no-plain-secret",
        {"containerDefinitions": container(environment=[{"name": "DB_PASSWORD", "value": "x"}])},
    ),
    ("container-confined", {"containerDefinitions": container(user="root")}),
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


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_passes(name: str) -> None:
    made = stack(name)
    provider = made.one("providers:aws", "aws").plain
    tags = json.loads(provider["defaultTags"])["tags"]  # AWS adds them to every resource
    faults = [
        f"{rule.name}: {resource.name}: {fault}"
        for rule in rules.RULES
        for resource in made.resources
        if resource.type in rule.types
        for fault in rule.check({**resource.plain, "tagsAll": tags})
    ]
    assert faults == []


def test_every_rule_looks_at_something() -> None:
    types = {resource.type for name in STACKS for resource in stack(name).resources}
    assert not [rule.name for rule in rules.RULES if types.isdisjoint(rule.types)]


def test_the_pack_knows_the_reasons_that_the_program_writes_down() -> None:
    assert set(rules.UNSCOPED) == set(UNSCOPED)
