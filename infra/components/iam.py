"""IAM policy documents, typed. No other file writes a policy by hand.

A statement on every resource (`*`) can only be made by `anywhere`, which asks for its reason in
unscoped.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi import Input, Output

from infra.components.unscoped import UNSCOPED
from trainyard.contract.naming import Location

Conditions = Mapping[str, Mapping[str, Input[str] | Sequence[Input[str]]]]


@dataclass(frozen=True)
class Statement:
    """One statement of a policy."""

    sid: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[Input[str], ...] = ()
    principals: Mapping[str, Sequence[Input[str]]] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=dict)

    def rendered(self) -> dict[str, Any]:
        """The statement as IAM reads it. What is empty is left out: IAM refuses it."""
        out: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": self.effect,
            "Action": sorted(self.actions),
        }
        if self.resources:
            out["Resource"] = list(self.resources)
        if self.principals:
            everyone = self.principals == {"*": ["*"]}
            out["Principal"] = "*" if everyone else {k: list(v) for k, v in self.principals.items()}
        if self.conditions:
            out["Condition"] = {
                operator: {key: _listed(value) for key, value in keys.items()}
                for operator, keys in self.conditions.items()
            }
        return out


def _listed(value: Input[str] | Sequence[Input[str]]) -> Any:
    return value if isinstance(value, str | Output) else list(value)  # type: ignore[arg-type]


def allow(
    sid: str, *actions: str, on: Sequence[Input[str]], when: Conditions | None = None
) -> Statement:
    """Allow actions on resources that are named."""
    if not on:
        raise ValueError(f"{sid}: name the resources")
    if any(isinstance(resource, str) and resource == "*" for resource in on):
        raise ValueError(
            f"{sid}: a statement on every resource is made by `anywhere`, with its reason"
        )
    return Statement(sid, "Allow", actions, tuple(on), conditions=when or {})


def anywhere(sid: str, *actions: str, when: Conditions | None = None) -> Statement:
    """Allow actions on every resource, for the reason that UNSCOPED gives."""
    if sid not in UNSCOPED:
        raise ValueError(f"{sid}: write down in UNSCOPED why it can't be narrower")
    return Statement(sid, "Allow", actions, ("*",), conditions=when or {})


def document(*statements: Statement) -> Output[str]:
    """A policy document."""
    sids = [statement.sid for statement in statements]
    if len(set(sids)) != len(sids):
        raise ValueError(f"statements need different Sids: {sids}")
    return pulumi.Output.json_dumps(
        {"Version": "2012-10-17", "Statement": [statement.rendered() for statement in statements]}
    )


# --- trust ----------------------------------------------------------------------------------------
def trusted_service(service: str, location: Location) -> Output[str]:
    """Who may take a role: an AWS service, and only for this account (not for another one's
    request).
    """
    return document(
        Statement(
            "Assume",
            "Allow",
            ("sts:AssumeRole",),
            principals={"Service": [service]},
            conditions={"StringEquals": {"aws:SourceAccount": location.account}},
        )
    )


# --- what several components say ------------------------------------------------------------------
def pull_images(location: Location, account: str = "") -> tuple[Statement, ...]:
    """Pull Trainyard's images from an account's registry."""
    return (
        anywhere("RegistryLogin", "ecr:GetAuthorizationToken"),
        allow(
            "PullImages",
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            on=[location.arn("ecr", "repository/trainyard/*", account=account or None)],
        ),
    )


def write_logs(log_group_arn: Input[str]) -> Statement:
    """Write to one log group."""
    return allow(
        "WriteLogs",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        on=[Output.format("{0}:*", log_group_arn)],
    )


def use_prefix(bucket_arn: Input[str], prefix: str) -> tuple[Statement, ...]:
    """Read and write one prefix of a bucket, and see nothing beside it. Nothing is deleted."""
    return (
        allow(
            "UsePrefix",
            "s3:AbortMultipartUpload",
            "s3:GetObject",
            "s3:PutObject",
            on=[Output.format("{0}/{1}*", bucket_arn, prefix)],
        ),
        allow(
            "ListPrefix",
            "s3:ListBucket",
            on=[bucket_arn],
            when={"StringLike": {"s3:prefix": [f"{prefix}*"]}},
        ),
    )


def write_prefix(bucket_arn: Input[str], prefix: str) -> Statement:
    """Write objects under a prefix of a bucket, without reading or listing any."""
    on = [Output.format("{0}/{1}*", bucket_arn, prefix)]
    return allow("WritePrefix", "s3:AbortMultipartUpload", "s3:PutObject", on=on)


def read_sources(location: Location, prefixes: Sequence[str]) -> list[Statement]:
    """Read prefixes of other buckets, `s3://bucket/prefix/`, and list nothing beside them."""
    statements = []
    for i, source in enumerate(prefixes):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        arn = location.bucket_arn(bucket)
        statements += [
            allow(f"ReadSource{i}", "s3:GetObject", on=[f"{arn}/{prefix}*"]),
            allow(
                f"ListSource{i}",
                "s3:ListBucket",
                on=[arn],
                when={"StringLike": {"s3:prefix": [f"{prefix}*"]}},
            ),
        ]
    return statements


def use_key(key_arn: Input[str]) -> Statement:
    """Use a key for what S3 encrypts with it."""
    return allow("UseKey", "kms:Decrypt", "kms:GenerateDataKey", on=[key_arn])


# --- resources' own policies ----------------------------------------------------------------------
def tls_only(bucket_arn: Input[str]) -> tuple[Statement, ...]:
    """Refuse requests in the clear, and those by an outdated TLS."""
    both = (bucket_arn, Output.format("{0}/*", bucket_arn))
    everyone = {"*": ["*"]}
    return (
        Statement(
            "RefuseClearText",
            "Deny",
            ("s3:*",),
            both,
            everyone,
            {"Bool": {"aws:SecureTransport": "false"}},
        ),
        Statement(
            "RefuseOldTls",
            "Deny",
            ("s3:*",),
            both,
            everyone,
            {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
        ),
    )


def receive_access_logs(bucket_arn: Input[str], location: Location) -> Statement:
    """Let S3 deliver this account's access logs."""
    return Statement(
        "AccessLogs",
        "Allow",
        ("s3:PutObject",),
        (Output.format("{0}/s3/*", bucket_arn),),
        {"Service": ["logging.s3.amazonaws.com"]},
        {"StringEquals": {"aws:SourceAccount": location.account}},
    )


def key_owner(location: Location) -> Statement:
    """The account decides about the key, through its roles' policies. (A key's policy names itself
    as `*`.)
    """
    return Statement(
        "Owner",
        "Allow",
        ("kms:*",),
        ("*",),
        {"AWS": [location.global_arn("iam", "root")]},
    )


def receive_from(
    service: str, action: str, target_arn: Input[str], source_arn: Input[str]
) -> Statement:
    """Let an AWS service deliver to a queue or topic, for one source only."""
    return Statement(
        f"From{service.partition('.')[0].title()}",
        "Allow",
        (action,),
        (target_arn,),
        {"Service": [service]},
        {"ArnEquals": {"aws:SourceArn": source_arn}},
    )


def receive_notices(
    topic_arn: Input[str], location: Location, services: Sequence[str]
) -> tuple[Statement, ...]:
    """Let AWS services of this account publish to a topic."""
    return tuple(
        Statement(
            f"From{service.partition('.')[0].title()}",
            "Allow",
            ("sns:Publish",),
            (topic_arn,),
            {"Service": [service]},
            {"StringEquals": {"aws:SourceAccount": location.account}},
        )
        for service in services
    )
