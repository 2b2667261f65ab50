"""What is in an account: so that what a destroyed stack has left is found."""

from typing import Any

import jmespath  # type: ignore[import-untyped]

# What a stack makes, but for parts of these, such as a network's subnets: service, call, JMESPath.
KINDS = {
    "addresses": "ec2 describe_addresses Addresses[].AllocationId",
    "alarms": "cloudwatch describe_alarms MetricAlarms[].AlarmName",
    "buckets": "s3 list_buckets Buckets[].Name",
    "budgets": "budgets describe_budgets Budgets[].BudgetName",
    "clusters": "ecs list_clusters clusterArns[]",
    "dashboards": "cloudwatch list_dashboards DashboardEntries[].DashboardName",
    "databases": "rds describe_db_instances DBInstances[].DBInstanceIdentifier",
    "internet gateways": "ec2 describe_internet_gateways InternetGateways[].InternetGatewayId",
    "key aliases": "kms list_aliases Aliases[].AliasName",
    "keys": "kms list_keys Keys[].KeyId",
    "log groups": "logs describe_log_groups logGroups[].logGroupName",
    "namespaces": "servicediscovery list_namespaces Namespaces[].Name",
    "nat gateways": "ec2 describe_nat_gateways NatGateways[?State!='deleted'].NatGatewayId",
    "networks": "ec2 describe_vpcs Vpcs[?!IsDefault].VpcId",
    "parameter groups": "rds describe_db_parameter_groups DBParameterGroups[].DBParameterGroupName",
    "parameters": "ssm describe_parameters Parameters[].Name",
    "queues": "sqs list_queues QueueUrls[]",
    "roles": "iam list_roles Roles[?contains(RoleName,'trainyard-')].RoleName",
    "rules": "events list_rules Rules[].Name",
    "secrets": "secretsmanager list_secrets SecretList[].Name",
    "security groups": "ec2 describe_security_groups SecurityGroups[?GroupName!='default'].GroupId",
    "subnet groups": "rds describe_db_subnet_groups DBSubnetGroups[].DBSubnetGroupName",
    "task definitions": "ecs list_task_definitions taskDefinitionArns[]",
    "topics": "sns list_topics Topics[].TopicArn",
}


def inventory(session: Any) -> dict[str, list[str]]:
    """Everything of the kinds that a stack makes, without AWS's own defaults."""
    account = {"AccountId": session.client("sts").get_caller_identity()["Account"]}
    kms = session.client("kms")

    def is_there(kind: str, name: str) -> bool:
        if kind == "keys":  # a destroyed stack schedules its keys' deletion
            return bool(
                kms.describe_key(KeyId=name)["KeyMetadata"]["KeyState"] != "PendingDeletion"
            )
        return not name.startswith(("default", "alias/aws/"))

    found = {}
    for kind, line in KINDS.items():
        service, call, expression = line.split()
        given = account if service == "budgets" else {}
        answer = getattr(session.client(service), call)(**given)
        names = jmespath.search(expression, answer) or []
        found[kind] = sorted(name for name in names if is_there(kind, name))
    return found
