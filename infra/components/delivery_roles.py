"""DeliveryRoles: what GitHub's workflows may do here, by a token that names repository and
environment. No keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from trainyard.contract.naming import OWN, PREVIEW_ENVIRONMENT, Location

ISSUER = "token.actions.githubusercontent.com"


@dataclass(frozen=True)
class DeliveryRolesArgs:
    """Arguments of DeliveryRoles."""

    location: Location
    repository: str
    owner_id: str
    repository_id: str
    provider_arn: str
    """GitHub's provider where the account has it already; empty makes it."""
    environments: Sequence[str]
    state_bucket: str
    state_key_arn: str
    permissions_boundary: str
    """On these two roles, where an organization asks for one; they aren't bounded otherwise."""
    roles_boundary: str
    """On every role that the deploy role makes."""
    claims: bool = True
    """Trust the token's `repository_id` too. (An emulator may know its subject only.)"""


class DeliveryRoles(pulumi.ComponentResource):
    """Create GitHub's two roles: one deploys, from its environments only, one can only look.

    GitHub's OIDC provider is created too, unless `provider_arn` names the account's.

    Inputs: `repository` with its numbers, and `environments`, which the roles trust;
    `state_bucket` and `state_key_arn` of Pulumi's state; `roles_boundary`, which has to be on every
    role that the deploy role creates.
    Outputs: `deploy_role_arn`, `preview_role_arn`.
    Idle cost: free.
    """

    deploy_role_arn: Output[str]
    preview_role_arn: Output[str]

    def __init__(self, name: str, args: DeliveryRolesArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:delivery:DeliveryRoles", name, None, opts)
        provider_arn: Input[str] = args.provider_arn
        if not args.provider_arn:
            provider_arn = aws.iam.OpenIdConnectProvider(
                f"{name}-oidc",
                url=f"https://{ISSUER}",
                client_id_lists=["sts.amazonaws.com"],
                opts=ResourceOptions(parent=self),
            ).arn
        self.deploy_role_arn = self._role(
            f"{name}-deploy",
            "Deploys Trainyard's stacks",
            trust(args, provider_arn, args.environments),
            {
                "manage": manage(args),
                "network": manage_network(args.location),
                "roles": manage_roles(args, f"{name}-*"),
                "state": use_state(args, write=True),
                "images": push_images(args.location),
                "read": [read_for_plans()],
            },
            args,
        )
        self.preview_role_arn = self._role(
            f"{name}-preview",
            "Previews Trainyard's stacks and looks for drift",
            trust(args, provider_arn, [PREVIEW_ENVIRONMENT]),
            {
                "read": [read_for_plans(), read_parameters(args.location)],
                "state": use_state(args, write=False),
            },
            args,
        )
        self.register_outputs({"deploy_role_arn": self.deploy_role_arn})

    def _role(
        self,
        name: str,
        description: str,
        trusted: Output[str],
        policies: dict[str, list[iam.Statement]],
        args: DeliveryRolesArgs,
    ) -> Output[str]:
        role = aws.iam.Role(
            name,
            description=description,
            assume_role_policy=trusted,
            max_session_duration=2 * 3600,  # a database takes its time
            permissions_boundary=args.permissions_boundary or None,
            opts=ResourceOptions(parent=self),
        )
        for part, statements in policies.items():
            # Managed policies: together they are longer than a role's inline ones may be.
            policy = aws.iam.Policy(
                f"{name}-{part}",
                policy=iam.document(*statements),
                opts=ResourceOptions(parent=self),
            )
            aws.iam.RolePolicyAttachment(
                f"{name}-{part}",
                role=role.name,
                policy_arn=policy.arn,
                opts=ResourceOptions(parent=self),
            )
        return role.arn


def subject(repository: str, owner_id: str, repository_id: str, environment: str) -> str:
    """The subject of a token for a job in an environment, in GitHub's immutable form (since July
    2026).

    The numbers stay with the repository: who takes over a deleted name doesn't take over its
    rights.
    """
    owner, _, name = repository.partition("/")
    return f"repo:{owner}@{owner_id}/{name}@{repository_id}:environment:{environment}"


def trust(
    args: DeliveryRolesArgs, provider_arn: Input[str], environments: Sequence[str]
) -> Output[str]:
    """Only jobs of this repository, in these environments."""
    exactly: dict[str, Input[str] | Sequence[Input[str]]] = {
        f"{ISSUER}:aud": "sts.amazonaws.com",
        f"{ISSUER}:sub": [
            subject(args.repository, args.owner_id, args.repository_id, each)
            for each in environments
        ],
    }
    if args.claims:
        exactly[f"{ISSUER}:repository_id"] = args.repository_id
    return iam.document(
        iam.Statement(
            "GitHub",
            "Allow",
            ("sts:AssumeRoleWithWebIdentity",),
            principals={"Federated": [provider_arn]},
            conditions={"StringEquals": exactly},
        )
    )


def use_state(args: DeliveryRolesArgs, *, write: bool) -> list[iam.Statement]:
    """Pulumi's state: read it, and write it where stacks are changed."""
    bucket = args.location.bucket_arn(args.state_bucket)
    change = ("s3:DeleteObject", "s3:PutObject") if write else ()
    statements = [
        iam.allow("FindState", "s3:GetBucketLocation", "s3:ListBucket", on=[bucket]),
        iam.allow("UseState", "s3:GetObject", *change, on=[f"{bucket}/*"]),
    ]
    if args.state_key_arn:
        encrypt = ("kms:Encrypt", "kms:GenerateDataKey") if write else ()
        statements.append(
            iam.allow("StateSecrets", "kms:Decrypt", *encrypt, on=[args.state_key_arn])
        )
        if write:  # `manage_network` lets it change keys, which have no name; not this one
            change_key = ("kms:PutKeyPolicy", "kms:ScheduleKeyDeletion")
            statements.append(
                iam.Statement("KeepStateKey", "Deny", change_key, (args.state_key_arn,))
            )
    return statements


def push_images(location: Location) -> list[iam.Statement]:
    """Push to Trainyard's repositories, and pull from them."""
    return [
        *iam.pull_images(location),
        iam.allow(
            "PushImages",
            "ecr:CompleteLayerUpload",
            "ecr:DescribeImages",
            "ecr:InitiateLayerUpload",
            "ecr:PutImage",
            "ecr:UploadLayerPart",
            on=[location.arn("ecr", "repository/trainyard/*")],
        ),
    ]


def read_for_plans() -> iam.Statement:
    """What previews and drift checks look at: configuration, never content."""
    return iam.anywhere(
        "ReadForPlans",
        "budgets:ViewBudget",
        "budgets:ListTagsForResource",
        "cloudwatch:DescribeAlarms",
        "cloudwatch:GetDashboard",
        "cloudwatch:ListTagsForResource",
        "ec2:Describe*",
        "ecr:DescribeRepositories",
        "ecr:GetLifecyclePolicy",
        "ecr:ListTagsForResource",
        "ecs:Describe*",
        "ecs:List*",
        "events:DescribeRule",
        "events:ListTagsForResource",
        "events:ListTargetsByRule",
        "iam:GetOpenIDConnectProvider",
        "iam:GetPolicy",
        "iam:GetPolicyVersion",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListInstanceProfilesForRole",
        "iam:ListPolicyVersions",
        "iam:ListRolePolicies",
        "kms:DescribeKey",
        "kms:GetKeyPolicy",
        "kms:GetKeyRotationStatus",
        "kms:ListAliases",
        "kms:ListResourceTags",
        "logs:DescribeLogGroups",
        "logs:DescribeMetricFilters",
        "logs:ListTagsForResource",
        "rds:Describe*",
        "rds:ListTagsForResource",
        "route53:GetHostedZone",
        "s3:GetBucket*",
        "s3:GetAccelerateConfiguration",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:GetReplicationConfiguration",
        "s3:ListBucket",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetRandomPassword",
        "secretsmanager:GetResourcePolicy",
        "secretsmanager:ListSecretVersionIds",
        "servicediscovery:Get*",
        "servicediscovery:List*",
        "sns:GetSubscriptionAttributes",
        "sns:GetTopicAttributes",
        "sns:ListTagsForResource",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ListQueueTags",
        "ssm:DescribeParameters",
        "ssm:ListTagsForResource",
    )


def read_parameters(location: Location) -> iam.Statement:
    """The stacks' own parameters: previews decide by them."""
    return iam.allow(
        "ReadParameters",
        "ssm:GetParameter",
        "ssm:GetParameters",
        "ssm:GetParametersByPath",
        on=[location.arn("ssm", "parameter/trainyard/*")],
    )


def manage(args: DeliveryRolesArgs) -> list[iam.Statement]:
    """What Trainyard's stacks are made of, by their names."""
    at = args.location
    return [
        iam.allow(
            "Buckets",
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:DeleteBucketPolicy",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:ListBucketVersions",
            "s3:PutBucketLogging",
            "s3:PutBucketOwnershipControls",
            "s3:PutBucketPolicy",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:PutBucketVersioning",
            "s3:PutEncryptionConfiguration",
            "s3:PutLifecycleConfiguration",
            on=[at.bucket_arn(OWN), at.bucket_arn(f"{OWN}/*")],
        ),
        iam.allow(
            "Databases",
            "rds:AddTagsToResource",
            "rds:CreateDBInstance",
            "rds:CreateDBParameterGroup",
            "rds:CreateDBSnapshot",
            "rds:CreateDBSubnetGroup",
            "rds:DeleteDBInstance",
            "rds:DeleteDBParameterGroup",
            "rds:DeleteDBSubnetGroup",
            "rds:ModifyDBInstance",
            "rds:ModifyDBParameterGroup",
            "rds:ModifyDBSubnetGroup",
            "rds:RemoveTagsFromResource",
            "rds:ResetDBParameterGroup",
            "rds:RestoreDBInstanceFromDBSnapshot",
            on=[at.arn("rds", f"{kind}:{OWN}") for kind in ("db", "pg", "snapshot", "subgrp")],
        ),
        iam.allow(
            "Clusters",
            "ecs:CreateCluster",
            "ecs:CreateService",
            "ecs:DeleteCluster",
            "ecs:DeleteService",
            "ecs:PutClusterCapacityProviders",
            "ecs:RegisterTaskDefinition",
            "ecs:RunTask",
            "ecs:StopTask",
            "ecs:TagResource",
            "ecs:UntagResource",
            "ecs:UpdateCluster",
            "ecs:UpdateClusterSettings",
            "ecs:UpdateService",
            on=[
                at.arn("ecs", f"cluster/{OWN}"),
                at.arn("ecs", f"service/{OWN}/*"),
                at.arn("ecs", f"task/{OWN}/*"),
                at.arn("ecs", f"task-definition/{OWN}:*"),
            ],
        ),
        iam.allow(
            "Queues",
            "sqs:CreateQueue",
            "sqs:DeleteQueue",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
            "sqs:UntagQueue",
            on=[at.arn("sqs", OWN)],
        ),
        iam.allow(
            "Topics",
            "sns:CreateTopic",
            "sns:DeleteTopic",
            "sns:SetTopicAttributes",
            "sns:Subscribe",
            "sns:TagResource",
            "sns:Unsubscribe",
            "sns:UntagResource",
            on=[at.arn("sns", OWN)],
        ),
        iam.allow(
            "Rules",
            "events:DeleteRule",
            "events:PutRule",
            "events:PutTargets",
            "events:RemoveTargets",
            "events:TagResource",
            "events:UntagResource",
            on=[at.arn("events", f"rule/{OWN}")],
        ),
        iam.allow(
            "Secrets",
            "secretsmanager:CreateSecret",
            "secretsmanager:DeleteSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:TagResource",
            "secretsmanager:UntagResource",
            "secretsmanager:UpdateSecret",
            "secretsmanager:UpdateSecretVersionStage",
            on=[at.arn("secretsmanager", f"secret:{OWN}")],
        ),
        read_parameters(at),
        iam.allow(
            "Parameters",
            "ssm:AddTagsToResource",
            "ssm:DeleteParameter",
            "ssm:PutParameter",
            "ssm:RemoveTagsFromResource",
            on=[at.arn("ssm", "parameter/trainyard/*")],
        ),
        iam.allow(
            "Logs",
            "logs:CreateLogGroup",
            "logs:DeleteLogGroup",
            "logs:DeleteMetricFilter",
            "logs:GetLogEvents",
            "logs:PutMetricFilter",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
            on=[
                at.arn("logs", "log-group:/trainyard/*"),
                at.arn("logs", f"log-group:/aws/rds/instance/{OWN}"),
            ],
        ),
        iam.allow(
            "Alarms",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:TagResource",
            "cloudwatch:UntagResource",
            on=[at.arn("cloudwatch", f"alarm:{OWN}")],
        ),
        iam.allow(
            "Dashboards",
            "cloudwatch:DeleteDashboards",
            "cloudwatch:PutDashboard",
            on=[at.global_arn("cloudwatch", f"dashboard/{OWN}")],
        ),
        iam.allow(
            "Budgets",
            "budgets:ModifyBudget",
            "budgets:TagResource",
            "budgets:UntagResource",
            on=[at.global_arn("budgets", f"budget/{OWN}")],
        ),
    ]


def manage_network(location: Location) -> list[iam.Statement]:
    """Networks, keys and names: what has no name before it exists. In this region only."""
    return [
        iam.anywhere(
            "DeployUnscoped",
            "ec2:AllocateAddress",
            "ec2:AssociateRouteTable",
            "ec2:AttachInternetGateway",
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:CreateFlowLogs",
            "ec2:CreateInternetGateway",
            "ec2:CreateNatGateway",
            "ec2:CreateRoute",
            "ec2:CreateRouteTable",
            "ec2:CreateSecurityGroup",
            "ec2:CreateSubnet",
            "ec2:CreateTags",
            "ec2:CreateVpc",
            "ec2:CreateVpcEndpoint",
            "ec2:DeleteFlowLogs",
            "ec2:DeleteInternetGateway",
            "ec2:DeleteNatGateway",
            "ec2:DeleteRoute",
            "ec2:DeleteRouteTable",
            "ec2:DeleteSecurityGroup",
            "ec2:DeleteSubnet",
            "ec2:DeleteTags",
            "ec2:DeleteVpc",
            "ec2:DeleteVpcEndpoints",
            "ec2:DetachInternetGateway",
            "ec2:DisassociateAddress",
            "ec2:DisassociateRouteTable",
            "ec2:ModifySecurityGroupRules",
            "ec2:ModifySubnetAttribute",
            "ec2:ModifyVpcAttribute",
            "ec2:ModifyVpcEndpoint",
            "ec2:ReleaseAddress",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
            "ecs:DeregisterTaskDefinition",
            "kms:CreateAlias",
            "kms:CreateKey",
            "kms:DeleteAlias",
            "kms:EnableKeyRotation",
            "kms:PutKeyPolicy",
            "kms:ScheduleKeyDeletion",
            "kms:TagResource",
            "kms:UntagResource",
            "kms:UpdateKeyDescription",
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "route53:AssociateVPCWithHostedZone",
            "route53:CreateHostedZone",
            "route53:DeleteHostedZone",
            "servicediscovery:CreatePrivateDnsNamespace",
            "servicediscovery:CreateService",
            "servicediscovery:DeleteNamespace",
            "servicediscovery:DeleteService",
            "servicediscovery:TagResource",
            "servicediscovery:UntagResource",
            "servicediscovery:UpdateService",
            when={"StringEquals": {"aws:RequestedRegion": [location.region, "us-east-1"]}},
        )
    ]


def manage_roles(args: DeliveryRolesArgs, delivery_roles: str) -> list[iam.Statement]:
    """The stacks' roles: made, and given policies, with the boundary on them and not otherwise.

    Neither the boundary nor the delivery roles can be changed by who deploys.
    """
    roles = [args.location.global_arn("iam", f"role/{OWN}")]
    return [
        iam.allow(
            "BoundedRoles",
            "iam:CreateRole",
            "iam:DeleteRolePolicy",
            "iam:PutRolePermissionsBoundary",
            "iam:PutRolePolicy",
            on=roles,
            when={"StringEquals": {"iam:PermissionsBoundary": args.roles_boundary}},
        ),
        iam.allow(
            "ChangeRoles",
            "iam:DeleteRole",
            "iam:TagRole",
            "iam:UntagRole",
            "iam:UpdateAssumeRolePolicy",
            "iam:UpdateRoleDescription",
            on=roles,
        ),
        iam.Statement(
            "LeaveDeliveryAlone",
            "Deny",
            ("iam:*",),
            (args.location.global_arn("iam", f"role/{delivery_roles}"),),
        ),
        iam.allow(
            "PassRoles",
            "iam:PassRole",
            on=roles,
            when={
                "StringEquals": {
                    "iam:PassedToService": [
                        "ecs-tasks.amazonaws.com",
                        "vpc-flow-logs.amazonaws.com",
                    ]
                }
            },
        ),
        # ECS and RDS make their own roles in an account that never used them.
        iam.allow(
            "ServiceRoles",
            "iam:CreateServiceLinkedRole",
            on=[args.location.global_arn("iam", "role/aws-service-role/*")],
            when={
                "StringEquals": {"iam:AWSServiceName": ["ecs.amazonaws.com", "rds.amazonaws.com"]}
            },
        ),
    ]
