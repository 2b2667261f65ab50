"""FlowRuns: what a flow run's task is started with: two roles, a security group, a log group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from infra.components.artifact_store import FLOWS
from infra.components.fargate import Platform, task_role
from infra.components.network import Placement, task_security_group
from infra.components.secret import SecretField


@dataclass(frozen=True)
class FlowRunsArgs:
    """Arguments of FlowRuns."""

    platform: Platform
    placement: Placement
    log_group: str
    bucket_arn: Input[str]
    key_arn: Input[str] | None
    source_prefixes: Sequence[str]
    """`s3://bucket/prefix/`: what flows may read beside the stack's own bucket."""
    secrets: Mapping[str, SecretField] = field(default_factory=dict)
    """What a run's container is given, by the name of its environment variable."""


class FlowRuns(pulumi.ComponentResource):
    """Create what the worker starts each flow run with: two roles, a security group, a log group.

    The worker may pass these two roles and no others.

    Inputs: `bucket_arn` and `key_arn`, the store that runs use; `source_prefixes`, what they may
    read beside it; `secrets`, by environment variable.
    Outputs: `execution_role_arn`, `task_role_arn`, `security_group_id`, `log_group_name`,
    `log_group_arn`.
    Idle cost: free; a run's task is paid while it runs, logs by use.
    """

    execution_role_arn: Output[str]
    task_role_arn: Output[str]
    security_group_id: Output[str]
    log_group_name: Output[str]
    log_group_arn: Output[str]

    def __init__(self, name: str, args: FlowRunsArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:compute:FlowRuns", name, None, opts)
        inside = ResourceOptions(parent=self)
        platform = args.platform
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs", name=args.log_group, retention_in_days=platform.log_days, opts=inside
        )
        start = [
            *iam.pull_images(platform.location, platform.image_account),
            iam.write_logs(logs.arn),
        ]
        arns = list({id(s.arn): s.arn for s in args.secrets.values()}.values())
        if arns:
            start.append(iam.allow("ReadSecrets", "secretsmanager:GetSecretValue", on=arns))
        execution, _ = task_role(f"{name}-execution", platform, start, self)
        task, _ = task_role(f"{name}-task", platform, rights_of_flows(args), self)
        group = task_security_group(f"{name}-access", args.placement.vpc_id, "Flow runs", inside)
        self.execution_role_arn, self.task_role_arn = execution.arn, task.arn
        self.security_group_id = group.id
        self.log_group_name, self.log_group_arn = logs.name, logs.arn
        self.register_outputs({"task_role_arn": self.task_role_arn})


def rights_of_flows(args: FlowRunsArgs) -> list[iam.Statement]:
    """What the code of flows may call."""
    rights = [
        *iam.use_prefix(args.bucket_arn, FLOWS),
        # so s3fs asks whether a bucket is there
        iam.allow("FindBucket", "s3:GetBucketLocation", on=[args.bucket_arn]),
    ]
    if args.key_arn is not None:
        rights.append(iam.use_key(args.key_arn))
    return rights + iam.read_sources(args.platform.location, args.source_prefixes)
