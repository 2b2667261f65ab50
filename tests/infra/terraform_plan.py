"""A recorded stack as the JSON of a Terraform plan, which scanners read; they don't read Pulumi.

A scanner finds nothing wrong with what it can't see, so types, lists and objects that have no name
here stop the conversion. Single values of the types below are Pulumi's with underscores.
"""

import re
from collections.abc import Mapping
from typing import Any

from infra.estimate.recorder import Recording, Resource

TYPES = {
    "aws:appautoscaling/policy:Policy": "aws_appautoscaling_policy",
    "aws:appautoscaling/target:Target": "aws_appautoscaling_target",
    "aws:budgets/budget:Budget": "aws_budgets_budget",
    "aws:cloudwatch/dashboard:Dashboard": "aws_cloudwatch_dashboard",
    "aws:cloudwatch/eventRule:EventRule": "aws_cloudwatch_event_rule",
    "aws:cloudwatch/eventTarget:EventTarget": "aws_cloudwatch_event_target",
    "aws:cloudwatch/logGroup:LogGroup": "aws_cloudwatch_log_group",
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": "aws_cloudwatch_log_metric_filter",
    "aws:cloudwatch/metricAlarm:MetricAlarm": "aws_cloudwatch_metric_alarm",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "aws_default_security_group",
    "aws:ec2/eip:Eip": "aws_eip",
    "aws:ec2/flowLog:FlowLog": "aws_flow_log",
    "aws:ec2/internetGateway:InternetGateway": "aws_internet_gateway",
    "aws:ec2/natGateway:NatGateway": "aws_nat_gateway",
    "aws:ec2/route:Route": "aws_route",
    "aws:ec2/routeTable:RouteTable": "aws_route_table",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "aws_route_table_association",
    "aws:ec2/securityGroup:SecurityGroup": "aws_security_group",
    "aws:ec2/subnet:Subnet": "aws_subnet",
    "aws:ec2/vpc:Vpc": "aws_vpc",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "aws_vpc_endpoint",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "aws_ecr_lifecycle_policy",
    "aws:ecr/repository:Repository": "aws_ecr_repository",
    "aws:ecs/cluster:Cluster": "aws_ecs_cluster",
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": (
        "aws_ecs_cluster_capacity_providers"
    ),
    "aws:ecs/service:Service": "aws_ecs_service",
    "aws:ecs/taskDefinition:TaskDefinition": "aws_ecs_task_definition",
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": "aws_iam_openid_connect_provider",
    "aws:iam/policy:Policy": "aws_iam_policy",
    "aws:iam/role:Role": "aws_iam_role",
    "aws:iam/rolePolicy:RolePolicy": "aws_iam_role_policy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "aws_iam_role_policy_attachment",
    "aws:kms/alias:Alias": "aws_kms_alias",
    "aws:kms/key:Key": "aws_kms_key",
    "aws:lb/listener:Listener": "aws_lb_listener",
    "aws:lb/listenerRule:ListenerRule": "aws_lb_listener_rule",
    "aws:lb/loadBalancer:LoadBalancer": "aws_lb",
    "aws:lb/targetGroup:TargetGroup": "aws_lb_target_group",
    "aws:rds/instance:Instance": "aws_db_instance",
    "aws:rds/parameterGroup:ParameterGroup": "aws_db_parameter_group",
    "aws:rds/subnetGroup:SubnetGroup": "aws_db_subnet_group",
    "aws:s3/bucket:Bucket": "aws_s3_bucket",
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "aws_s3_bucket_lifecycle_configuration"
    ),
    "aws:s3/bucketLogging:BucketLogging": "aws_s3_bucket_logging",
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": "aws_s3_bucket_ownership_controls",
    "aws:s3/bucketPolicy:BucketPolicy": "aws_s3_bucket_policy",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "aws_s3_bucket_public_access_block",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "aws_s3_bucket_server_side_encryption_configuration"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": "aws_s3_bucket_versioning",
    "aws:secretsmanager/secret:Secret": "aws_secretsmanager_secret",
    "aws:secretsmanager/secretVersion:SecretVersion": "aws_secretsmanager_secret_version",
    "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace": (
        "aws_service_discovery_private_dns_namespace"
    ),
    "aws:servicediscovery/service:Service": "aws_service_discovery_service",
    "aws:sns/topic:Topic": "aws_sns_topic",
    "aws:sns/topicPolicy:TopicPolicy": "aws_sns_topic_policy",
    "aws:sqs/queue:Queue": "aws_sqs_queue",
    "aws:sqs/queuePolicy:QueuePolicy": "aws_sqs_queue_policy",
    "aws:ssm/parameter:Parameter": "aws_ssm_parameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": (
        "aws_vpc_security_group_egress_rule"
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        "aws_vpc_security_group_ingress_rule"
    ),
}
# Pulumi makes plurals of lists that Terraform names in the singular; which, no rule tells.
LISTS = {
    "actions": "action",
    "alarmActions": "alarm_actions",
    "capacityProviderStrategies": "capacity_provider_strategy",
    "capacityProviders": "capacity_providers",
    "conditions": "condition",
    "clientIdLists": "client_id_list",
    "costFilters": "cost_filter",
    "defaultActions": "default_action",
    "defaultCapacityProviderStrategies": "default_capacity_provider_strategy",
    "dnsRecords": "dns_records",
    "egress": "egress",
    "enabledCloudwatchLogsExports": "enabled_cloudwatch_logs_exports",
    "encryptionConfigurations": "encryption_configuration",
    "ingress": "ingress",
    "loadBalancers": "load_balancer",
    "notifications": "notification",
    "okActions": "ok_actions",
    "parameters": "parameter",
    "requiresCompatibilities": "requires_compatibilities",
    "routeTableIds": "route_table_ids",
    "rules": "rule",
    "securityGroupIds": "security_group_ids",
    "securityGroups": "security_groups",
    "settings": "setting",
    "subnetIds": "subnet_ids",
    "subnets": "subnets",
    "subscriberSnsTopicArns": "subscriber_sns_topic_arns",
    "values": "values",
    "volumes": "volume",
    "vpcSecurityGroupIds": "vpc_security_group_ids",
}
# Objects with keys of the user's own; Terraform has every other object as a list of one block.
MAPS = ("dimensions", "tags")
BLOCKS = (
    "abortIncompleteMultipartUpload",
    "applyServerSideEncryptionByDefault",
    "deadLetterConfig",
    "deploymentCircuitBreaker",
    "dnsConfig",
    "expiration",
    "filter",
    "fixedResponse",
    "healthCheck",
    "hostHeader",
    "predefinedMetricSpecification",
    "targetTrackingScalingPolicyConfiguration",
    "healthCheckCustomConfig",
    "imageScanningConfiguration",
    "metricTransformation",
    "networkConfiguration",
    "noncurrentVersionExpiration",
    "retryPolicy",
    "rule",
    "runtimePlatform",
    "serviceRegistries",
    "versioningConfiguration",
)


def plan(stack: Recording) -> dict[str, Any]:
    """The plan that would make a stack's resources."""
    made = [r for r in stack.resources if r.custom and not r.type.startswith("pulumi:")]
    named = {f"{r.type} {r.name}": r for r in made}
    resources = []
    for resource in made:
        known: dict[str, str] = {}
        for dependency in resource.dependencies:
            if dependency in named:
                known |= references(named[dependency])
        resources.append(
            {
                "address": address(resource),
                "mode": "managed",
                "type": terraform_type(resource),
                "name": resource.name,
                "values": block(resource.plain, known, resource.type),
            }
        )
    return {
        "terraform_version": "1.13.0",  # its presence is how a plan is told from other JSON
        "planned_values": {"root_module": {"resources": resources}},
    }


def terraform_type(resource: Resource) -> str:
    """A resource's type as Terraform names it."""
    if resource.type not in TYPES:
        raise ValueError(f"{resource.type}: add it to TYPES in {__name__}")
    return TYPES[resource.type]


def address(resource: Resource) -> str:
    """A resource's name in the plan."""
    return f"{terraform_type(resource)}.{resource.name}"


def references(resource: Resource) -> dict[str, str]:
    """What AWS makes up about a resource, and how an expression of Terraform says it.

    Scanners follow these to know which policy, say, is which bucket's.
    """
    made_up = {k: v for k, v in resource.outputs.items() if k not in resource.inputs}
    return {
        value: f"{address(resource)}.{snake(key)}"
        for key, value in {**made_up, "id": resource.id}.items()
        if isinstance(value, str)
    }


def block(given: Mapping[str, Any], known: Mapping[str, str], where: str) -> dict[str, Any]:
    """Properties as Terraform has them."""
    out: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, list):
            if key not in LISTS:
                raise ValueError(f"{where}: {key}: add Terraform's name to LISTS in {__name__}")
            out[LISTS[key]] = [
                block(each, known, f"{where}: {key}") if isinstance(each, dict) else of(each, known)
                for each in value
            ]
        elif isinstance(value, dict) and key in MAPS:
            out[snake(key)] = value
        elif isinstance(value, dict):
            if key not in BLOCKS:
                raise ValueError(f"{where}: {key}: add it to BLOCKS or MAPS in {__name__}")
            out[snake(key)] = [block(value, known, f"{where}: {key}")]
        elif value is not None:
            out[snake(key)] = of(value, known)
    return out


def of(value: Any, known: Mapping[str, str]) -> Any:
    """A single value: numbers come from Pulumi as floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return known.get(value, value) if isinstance(value, str) else value


def snake(camel: str) -> str:
    """Terraform's spelling of a name that is otherwise the same."""
    return re.sub(r"[A-Z]", lambda upper: f"_{upper[0].lower()}", camel)
