"""Boundary: the most that any role of Trainyard's stacks can do, whatever its own policies say.

The role that deploys may make roles only with this boundary on them, so who can deploy can't make
a role that does more. Only `make bootstrap`, with a person's credentials, changes the boundary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Output, ResourceOptions

from infra.components import iam
from trainyard.contract.naming import BOUNDARY, OWN, Location


@dataclass(frozen=True)
class BoundaryArgs:
    """Arguments of Boundary."""

    location: Location
    source_prefixes: Sequence[str]


class Boundary(pulumi.ComponentResource):
    """Create the IAM policy that bounds every role of the environments; it grants nothing itself.

    Inputs: `source_prefixes`, what flows may read beside Trainyard's own buckets.
    Outputs: `arn`. Environments find the policy by its name, `trainyard-boundary`.
    Idle cost: free.
    """

    arn: Output[str]

    def __init__(self, name: str, args: BoundaryArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:account:Boundary", name, None, opts)
        policy = aws.iam.Policy(
            f"{name}-policy",
            name=BOUNDARY,  # environments name it without seeing this stack
            description="The most that a role of Trainyard's stacks can do",
            policy=iam.document(*most(args.location, args.source_prefixes)),
            opts=ResourceOptions(parent=self),
        )
        self.arn = policy.arn
        self.register_outputs({"arn": self.arn})


def most(at: Location, source_prefixes: Sequence[str]) -> list[iam.Statement]:
    """What roles can be given at all: no IAM but to hand each other to ECS, nothing of others.

    What isn't here is out of reach; a test holds every role's policy to it.
    """
    return [
        iam.anywhere("RegistryLogin", "ecr:GetAuthorizationToken"),
        iam.anywhere("DescribeTaskDefinitions", "ecs:DescribeTaskDefinition"),
        iam.anywhere("Tunnel", "ssmmessages:Create*Channel", "ssmmessages:Open*Channel"),
        *_data(at, source_prefixes),
        *_runs(at),
    ]


def _data(at: Location, source_prefixes: Sequence[str]) -> list[iam.Statement]:
    """What can be read, and what can be written."""
    return [
        iam.allow(
            "Images",
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            on=[at.arn("ecr", "repository/trainyard/*", account="*")],
        ),
        iam.allow(
            "Buckets",
            "s3:AbortMultipartUpload",
            "s3:GetBucketLocation",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
            on=[at.bucket_arn(OWN)],  # the objects too: `*` goes over a slash
        ),
        *iam.read_sources(at, source_prefixes),
        iam.allow(
            "Keys",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            on=[at.arn("kms", "key/*")],
            # Only S3 uses them for a role: nobody opens Pulumi's state with them.
            when={"StringEquals": {"kms:ViaService": f"s3.{at.region}.amazonaws.com"}},
        ),
        iam.allow(
            "Secrets",
            "secretsmanager:GetSecretValue",
            on=[at.arn("secretsmanager", f"secret:{OWN}")],
        ),
        iam.allow(
            "Parameters",
            "ssm:GetParameter",
            on=[at.arn("ssm", "parameter/trainyard/*")],
        ),
        iam.allow(
            "Logs",
            "logs:CreateLogStream",
            "logs:GetLogEvents",
            "logs:PutLogEvents",
            on=[at.arn("logs", "log-group:/trainyard/*")],
        ),
    ]


def _runs(at: Location) -> list[iam.Statement]:
    """What starting flow runs and watching them takes."""
    return [
        iam.allow(
            "Events",
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueUrl",
            "sqs:ReceiveMessage",
            on=[at.arn("sqs", OWN)],
        ),
        iam.allow(
            "Runs",
            "ecs:DescribeTasks",
            "ecs:RegisterTaskDefinition",
            "ecs:RunTask",
            "ecs:StopTask",
            "ecs:TagResource",
            on=[
                at.arn("ecs", f"task/{OWN}/*"),
                at.arn("ecs", f"task-definition/prefect_{OWN}"),
            ],
        ),
        iam.allow(
            "PassRoles",
            "iam:PassRole",
            on=[at.global_arn("iam", f"role/{OWN}")],
            when={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        ),
    ]
