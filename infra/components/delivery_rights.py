"""What GitHub's two roles may do: tables of actions, and the statements made of them."""

from collections.abc import Mapping

from infra.components import iam
from trainyard.contract.naming import OWN, Location

READ_PARAMETERS = ("ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath")
# What Trainyard's stacks are made of, by their names: Sid -> actions.
MANAGED: Mapping[str, tuple[str, ...]] = {
    "Buckets": (
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
    ),
    "Databases": (
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
    ),
    "Clusters": (
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
    ),
    "Queues": (
        "sqs:CreateQueue",
        "sqs:DeleteQueue",
        "sqs:SetQueueAttributes",
        "sqs:TagQueue",
        "sqs:UntagQueue",
    ),
    "Topics": (
        "sns:CreateTopic",
        "sns:DeleteTopic",
        "sns:SetTopicAttributes",
        "sns:Subscribe",
        "sns:TagResource",
        "sns:Unsubscribe",
        "sns:UntagResource",
    ),
    "Rules": (
        "events:DeleteRule",
        "events:PutRule",
        "events:PutTargets",
        "events:RemoveTargets",
        "events:TagResource",
        "events:UntagResource",
    ),
    "Secrets": (
        "secretsmanager:CreateSecret",
        "secretsmanager:DeleteSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
        "secretsmanager:TagResource",
        "secretsmanager:UntagResource",
        "secretsmanager:UpdateSecret",
        "secretsmanager:UpdateSecretVersionStage",
    ),
    "ReadParameters": READ_PARAMETERS,
    "Parameters": (
        "ssm:AddTagsToResource",
        "ssm:DeleteParameter",
        "ssm:PutParameter",
        "ssm:RemoveTagsFromResource",
    ),
    "Logs": (
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        "logs:DeleteMetricFilter",
        "logs:GetLogEvents",
        "logs:PutMetricFilter",
        "logs:PutRetentionPolicy",
        "logs:TagResource",
        "logs:UntagResource",
    ),
    "Alarms": (
        "cloudwatch:DeleteAlarms",
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:TagResource",
        "cloudwatch:UntagResource",
    ),
    "Dashboards": (
        "cloudwatch:DeleteDashboards",
        "cloudwatch:PutDashboard",
    ),
    "Budgets": (
        "budgets:ModifyBudget",
        "budgets:TagResource",
        "budgets:UntagResource",
    ),
}
OWN_ROLES = ("ecs", "ecs.application-autoscaling", "elasticloadbalancing", "rds")
# Networks, keys and names: what has no name before it exists.
UNNAMED: tuple[str, ...] = (
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
)
# What previews and drift checks look at: configuration, never content.
READ: tuple[str, ...] = (
    "application-autoscaling:Describe*",
    "application-autoscaling:ListTagsForResource",
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
    "elasticloadbalancing:Describe*",
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


def use_state(
    at: Location, state_bucket: str, state_key_arn: str, *, write: bool
) -> list[iam.Statement]:
    """Pulumi's state: read it, and write it where stacks are changed."""
    bucket = at.bucket_arn(state_bucket)
    change = ("s3:DeleteObject", "s3:PutObject") if write else ()
    statements = [
        iam.allow("FindState", "s3:GetBucketLocation", "s3:ListBucket", on=[bucket]),
        iam.allow("UseState", "s3:GetObject", *change, on=[f"{bucket}/*"]),
    ]
    if state_key_arn:
        encrypt = ("kms:Encrypt", "kms:GenerateDataKey") if write else ()
        statements.append(iam.allow("StateSecrets", "kms:Decrypt", *encrypt, on=[state_key_arn]))
        if write:  # `manage_network` lets it change keys, which have no name; not this one
            change_key = ("kms:PutKeyPolicy", "kms:ScheduleKeyDeletion")
            statements.append(iam.Statement("KeepStateKey", "Deny", change_key, (state_key_arn,)))
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
    return iam.anywhere("ReadForPlans", *READ)


def read_parameters(location: Location) -> iam.Statement:
    """The stacks' own parameters: previews decide by them."""
    return iam.allow(
        "ReadParameters",
        *READ_PARAMETERS,
        on=[location.arn("ssm", "parameter/trainyard/*")],
    )


def manage(at: Location) -> list[iam.Statement]:
    """What Trainyard's stacks are made of, by their names."""
    resources = {
        "Buckets": [at.bucket_arn(OWN), at.bucket_arn(f"{OWN}/*")],
        "Databases": [
            at.arn("rds", f"{kind}:{OWN}") for kind in ("db", "pg", "snapshot", "subgrp")
        ],
        "Clusters": [
            at.arn("ecs", f"cluster/{OWN}"),
            at.arn("ecs", f"service/{OWN}/*"),
            at.arn("ecs", f"task/{OWN}/*"),
            at.arn("ecs", f"task-definition/{OWN}:*"),
        ],
        "Queues": [at.arn("sqs", OWN)],
        "Topics": [at.arn("sns", OWN)],
        "Rules": [at.arn("events", f"rule/{OWN}")],
        "Secrets": [at.arn("secretsmanager", f"secret:{OWN}")],
        "ReadParameters": [at.arn("ssm", "parameter/trainyard/*")],
        "Parameters": [at.arn("ssm", "parameter/trainyard/*")],
        "Logs": [
            at.arn("logs", "log-group:/trainyard/*"),
            at.arn("logs", f"log-group:/aws/rds/instance/{OWN}"),
        ],
        "Alarms": [at.arn("cloudwatch", f"alarm:{OWN}")],
        "Dashboards": [at.global_arn("cloudwatch", f"dashboard/{OWN}")],
        "Budgets": [at.global_arn("budgets", f"budget/{OWN}")],
    }
    return [iam.allow(sid, *actions, on=resources[sid]) for sid, actions in MANAGED.items()]


def manage_network(location: Location) -> list[iam.Statement]:
    """Networks, keys and names: what has no name before it exists. In this region only."""
    region = {"aws:RequestedRegion": [location.region, "us-east-1"]}
    return [iam.anywhere("DeployUnscoped", *UNNAMED, when={"StringEquals": region})]


def manage_roles(at: Location, boundary: str, delivery_roles: str) -> list[iam.Statement]:
    """The stacks' roles: made, and given policies, with the boundary on them and not otherwise.

    Neither the boundary nor the delivery roles can be changed by who deploys.
    """
    roles = [at.global_arn("iam", f"role/{OWN}")]
    return [
        iam.allow(
            "BoundedRoles",
            "iam:CreateRole",
            "iam:DeleteRolePolicy",
            "iam:PutRolePermissionsBoundary",
            "iam:PutRolePolicy",
            on=roles,
            when={"StringEquals": {"iam:PermissionsBoundary": boundary}},
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
            (at.global_arn("iam", f"role/{delivery_roles}"),),
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
        # They make their own roles in an account that never used them.
        iam.allow(
            "ServiceRoles",
            "iam:CreateServiceLinkedRole",
            on=[at.global_arn("iam", "role/aws-service-role/*")],
            when={
                "StringEquals": {
                    "iam:AWSServiceName": [f"{name}.amazonaws.com" for name in OWN_ROLES]
                }
            },
        ),
    ]
