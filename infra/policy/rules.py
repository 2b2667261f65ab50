"""The rules, as plain functions: a resource's type, its properties, and the faults in them.

Apart from Pulumi's policy package, which needs an environment of its own, so that every rule can be
tested by itself. Values that a preview doesn't know yet are absent: a rule judges what it sees.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.components.unscoped import UNSCOPED

Properties = Mapping[str, Any]
Check = Callable[[Properties], Iterator[str]]
# Tags that every resource carries, for its bill and its owner.
REQUIRED_TAGS = ("Project", "trainyard-stack")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|AUTH_STRING|CREDENTIAL")


@dataclass(frozen=True)
class Rule:
    """One rule for resources of some types."""

    name: str
    types: tuple[str, ...]
    says: str
    ids: str
    """Where AWS Security Hub (FSBP) or CIS 7.0 ask for the same."""
    check: Check
    prod_only: bool = False


def document(properties: Properties, key: str) -> list[Mapping[str, Any]]:
    """The statements of a policy document; none where it isn't known yet."""
    text = properties.get(key)
    if not isinstance(text, str) or "Statement" not in text:
        return []
    statements = json.loads(text)["Statement"]
    return statements if isinstance(statements, list) else [statements]


def containers(properties: Properties) -> list[Mapping[str, Any]]:
    """A task definition's containers."""
    text = properties.get("containerDefinitions")
    found: list[Mapping[str, Any]] = json.loads(text) if isinstance(text, str) and text else []
    return found


def listed(value: Any) -> list[Any]:
    """A value, or the values of a list. (Pulumi hands lists over as sequences of its own.)"""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return list(value) if many else [value]


def public_access(properties: Properties) -> Iterator[str]:
    """All four blocks are on."""
    for block in (
        "blockPublicAcls",
        "blockPublicPolicy",
        "ignorePublicAcls",
        "restrictPublicBuckets",
    ):
        if properties.get(block) is not True:
            yield f"{block} is off"


def tls_only(properties: Properties) -> Iterator[str]:
    """Everybody's clear text is refused, by the bucket and for what is in it."""
    statements = document(properties, "policy")
    refuses = any(
        s["Effect"] == "Deny"
        and s.get("Principal") in ("*", {"AWS": "*"})
        and listed(s.get("Action")) == ["s3:*"]
        and len(listed(s.get("Resource"))) == 2
        and s.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for s in statements
    )
    if isinstance(properties.get("policy"), str) and not refuses:
        yield "the bucket answers without TLS"


def owner_enforced(properties: Properties) -> Iterator[str]:
    """ACLs are off."""
    if properties.get("rule", {}).get("objectOwnership") != "BucketOwnerEnforced":
        yield "ACLs are on"


def database_encrypted(properties: Properties) -> Iterator[str]:
    """Encrypted where it lies."""
    if properties.get("storageEncrypted") is not True:
        yield "the database isn't encrypted"


def database_private(properties: Properties) -> Iterator[str]:
    """No public address."""
    if properties.get("publiclyAccessible"):
        yield "the database has a public address"


def queue_encrypted(properties: Properties) -> Iterator[str]:
    """Encrypted where it lies."""
    if not properties.get("sqsManagedSseEnabled") and not properties.get("kmsMasterKeyId"):
        yield "the queue isn't encrypted"


def key_rotates(properties: Properties) -> Iterator[str]:
    """A new key every year."""
    if properties.get("enableKeyRotation") is not True:
        yield "the key never changes"


def narrow(properties: Properties) -> Iterator[str]:
    """No action or service as a whole, no resource or user but named ones."""
    for statement in [
        *document(properties, "policy"),
        *document(properties, "assumeRolePolicy"),
    ]:
        if statement["Effect"] != "Allow":
            continue
        users = statement.get("Principal", {})
        if any("*" in listed(u) for u in (users.values() if isinstance(users, dict) else [users])):
            yield f"{statement.get('Sid')} is for everyone"
        if any(a == "*" or a.endswith(":*") for a in listed(statement.get("Action", []))):
            yield f"{statement.get('Sid')} allows whole services"
        everything = "*" in listed(statement.get("Resource", []))
        if everything and statement.get("Sid") not in UNSCOPED:
            yield f"{statement.get('Sid')} is for every resource, without a written reason"


def no_ingress(properties: Properties) -> Iterator[str]:
    """Nothing comes in from everywhere."""
    rules = [properties, *listed(properties.get("ingress") or [])]
    for rule in rules:
        if not isinstance(rule, Mapping):
            continue
        sources = [rule.get("cidrIpv4"), rule.get("cidrIpv6"), *listed(rule.get("cidrBlocks"))]
        if {"0.0.0.0/0", "::/0"} & {s for s in sources if isinstance(s, str)}:
            yield "everyone may come in"


def log_ends(properties: Properties) -> Iterator[str]:
    """Logs are kept for a time that somebody chose."""
    if not properties.get("retentionInDays"):
        yield "the log is kept forever"


def tagged(properties: Properties) -> Iterator[str]:
    """Whose it is, and of which stack."""
    tags = properties.get("tagsAll") or properties.get("tags") or {}
    for tag in REQUIRED_TAGS:
        if tag not in tags:
            yield f"the tag {tag} is missing"


def no_plain_secret(properties: Properties) -> Iterator[str]:
    """Secrets come from Secrets Manager by `secrets`, never by `environment`."""
    for container in containers(properties):
        for variable in container.get("environment", []):
            if SECRET_NAME.search(variable["name"]):
                yield f"{variable['name']} stands in the environment of {container['name']}"
        for secret in container.get("secrets", []):
            if not re.match(r"arn:[^:]+:secretsmanager:", secret["valueFrom"]):
                yield f"{secret['name']} of {container['name']} isn't in Secrets Manager"


def confined(properties: Properties) -> Iterator[str]:
    """No powers; not root, and nothing to write on, but for the tunnel's agent."""
    for container in containers(properties):
        if container.get("privileged"):
            yield f"{container['name']} is privileged"
        capabilities = container.get("linuxParameters", {}).get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield f"{container['name']} keeps capabilities"
        if container["name"] == "tunnel":
            continue
        if not container.get("readonlyRootFilesystem"):
            yield f"{container['name']} may write its root"
        if container.get("user", "0").split(":")[0] in ("0", "root"):
            yield f"{container['name']} runs as root"


def by_digest(properties: Properties) -> Iterator[str]:
    """An image that can't be changed under its name."""
    for container in containers(properties):
        image = container["image"]
        if "sha256:" not in image and image != "image-not-set":
            yield f"{container['name']} runs {image}, which can be moved"


BUCKET = "aws:s3/bucket:Bucket"
TASK = "aws:ecs/taskDefinition:TaskDefinition"
RULES = (
    Rule(
        "bucket-public-access-blocked",
        ("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",),
        "Buckets block public access.",
        "FSBP S3.8, CIS 3.1.4",
        public_access,
    ),
    Rule(
        "bucket-tls-only",
        ("aws:s3/bucketPolicy:BucketPolicy",),
        "Buckets refuse requests without TLS.",
        "FSBP S3.5, CIS 3.1.1",
        tls_only,
    ),
    Rule(
        "bucket-acls-off",
        ("aws:s3/bucketOwnershipControls:BucketOwnershipControls",),
        "Buckets belong to their owner alone.",
        "FSBP S3.12",
        owner_enforced,
    ),
    Rule(
        "database-encrypted",
        ("aws:rds/instance:Instance",),
        "Databases are encrypted.",
        "FSBP RDS.3, CIS 3.2.1",
        database_encrypted,
    ),
    Rule(
        "database-private",
        ("aws:rds/instance:Instance",),
        "Databases have no public address.",
        "FSBP RDS.2, CIS 3.2.3",
        database_private,
    ),
    Rule(
        "queue-encrypted",
        ("aws:sqs/queue:Queue",),
        "Queues are encrypted.",
        "FSBP SQS.1",
        queue_encrypted,
    ),
    Rule("key-rotates", ("aws:kms/key:Key",), "Keys rotate.", "FSBP KMS.4", key_rotates),
    Rule(
        "iam-narrow",
        (
            "aws:iam/policy:Policy",
            "aws:iam/role:Role",
            "aws:iam/rolePolicy:RolePolicy",
            "aws:s3/bucketPolicy:BucketPolicy",
            "aws:sns/topicPolicy:TopicPolicy",
            "aws:sqs/queuePolicy:QueuePolicy",
        ),
        "Policies let named users do named things on named resources.",
        "FSBP IAM.1, IAM.21, SQS.3, CIS 2.14",
        narrow,
    ),
    Rule(
        "no-public-ingress",
        (
            "aws:ec2/securityGroup:SecurityGroup",
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        ),
        "Nothing is reachable from everywhere.",
        "FSBP EC2.18, EC2.19, CIS 6.3",
        no_ingress,
    ),
    Rule(
        "log-ends",
        ("aws:cloudwatch/logGroup:LogGroup",),
        "Logs are kept for a chosen time.",
        "FSBP CloudWatch.16",
        log_ends,
    ),
    Rule(
        "tagged",
        (BUCKET, "aws:rds/instance:Instance", "aws:ecs/cluster:Cluster", "aws:ec2/vpc:Vpc"),
        "What costs money says whose it is.",
        "FSBP S3 and EC2 tagging controls",
        tagged,
    ),
    Rule(
        "no-plain-secret",
        (TASK,),
        "Containers get secrets from Secrets Manager.",
        "FSBP ECS.8",
        no_plain_secret,
    ),
    Rule(
        "container-confined",
        (TASK,),
        "Containers have no powers, aren't root and write no root.",
        "FSBP ECS.4, ECS.5, ECS.20",
        confined,
    ),
    Rule(
        "image-by-digest",
        (TASK,),
        "In prod, images are named by digest.",
        "FSBP ECR.2",
        by_digest,
        prod_only=True,
    ),
)
