"""What holds for every stack, whatever its settings: each rule lists what breaks it.

These are what the template promises of its own stacks. What nobody's stack may do is in the policy
pack, which judges each resource by itself; here are rules that need several resources, or what only
a recording shows. The ids are of AWS Security Hub (FSBP) rules, where there is one.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from infra.estimate.recorder import Recording, is_secret
from infra.policy import rules as pack
from trainyard.contract.outputs import StackOutputs


def broken(stack: Recording) -> list[str]:
    """Everything that breaks a rule of this file."""
    return [f"{rule.__name__}: {fault}" for rule in RULES for fault in rule(stack)]


def faults(stack: Recording) -> list[str]:
    """Everything that breaks a rule of the policy pack."""
    provider = stack.one("providers:aws", "aws").plain
    tags = json.loads(provider["defaultTags"])["tags"]  # AWS adds them to every resource
    return [
        f"{rule.name}: {resource.name}: {fault}"
        for rule in pack.RULES
        for resource in stack.resources
        if resource.type in rule.types
        for fault in rule.check({**resource.plain, "tagsAll": tags})
    ]


def strings(value: Any) -> Iterator[str]:
    """Every text inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def nulls(value: Any) -> bool:
    """Whether a document says null anywhere."""
    if isinstance(value, dict):
        return any(nulls(each) for each in value.values())
    if isinstance(value, list):
        return any(nulls(each) for each in value)
    return value is None


def documents_hold_no_null(stack: Recording) -> Iterator[str]:
    for resource in stack.resources:
        for text in strings(resource.plain):
            if "None" in text or (text.startswith(("{", "[")) and nulls(json.loads(text))):
                yield f"{resource.name}: {text}"


def buckets_have_all_that_makes_them_safe(stack: Recording) -> Iterator[str]:
    """S3.13, S3.14, S3.17; the pack looks into the first three."""
    for kind in (
        "BucketPublicAccessBlock",
        "BucketOwnershipControls",
        "BucketPolicy",
        "BucketVersioning",
        "BucketServerSideEncryptionConfiguration",
        "BucketLifecycleConfiguration",
    ):
        have = {each.plain["bucket"] for each in stack.of(kind)}
        for bucket in stack.of("s3/bucket:Bucket"):
            if f"{bucket.name}-0123456" not in have:
                yield f"{bucket.name}: no {kind}"
    for each in stack.of("BucketVersioning"):
        if each.plain["versioningConfiguration"] != {"status": "Enabled"}:
            yield f"{each.name}: not versioned"
    for each in stack.of("BucketServerSideEncryptionConfiguration"):
        if not each.plain["rules"]:
            yield f"{each.name}: not encrypted"
    for each in stack.of("BucketLifecycleConfiguration"):
        if not any("abortIncompleteMultipartUpload" in rule for rule in each.plain["rules"]):
            yield f"{each.name}: abandoned uploads stay"


def only_https_leaves_and_only_the_network_comes_in(stack: Recording) -> Iterator[str]:
    """EC2.13, EC2.14."""
    for group in stack.of("ec2/securityGroup:SecurityGroup"):
        if group.plain.keys() & {"ingress", "egress"}:
            yield f"{group.name}: rules inside the group"
    vpcs = {r.plain["cidrBlock"] for r in stack.of("Vpc")}
    for each in stack.of("SecurityGroupIngressRule"):
        served = "-serve" in each.plain["securityGroupId"]  # to whoever the settings name
        if each.plain.get("cidrIpv4") not in {None, *vpcs} and not served:
            yield f"{each.name}: lets {each.plain['cidrIpv4']} in"
    for each in stack.of("SecurityGroupEgressRule"):
        ports = (each.plain["fromPort"], each.plain["toPort"])
        if "cidrIpv4" in each.plain and ports != (443, 443):
            yield f"{each.name}: {ports} to {each.plain['cidrIpv4']}"
    for kind in ("ec2/securityGroup:SecurityGroup", "SecurityGroupIngressRule"):
        for each in stack.of(kind):
            if not each.plain.get("description"):
                yield f"{each.name}: not described"


def networks_are_closed_where_nobody_opened_them(stack: Recording) -> Iterator[str]:
    """EC2.2, EC2.15."""
    for vpc in stack.of("Vpc"):
        closed = [
            (r.plain["ingress"], r.plain["egress"])
            for r in stack.of("DefaultSecurityGroup")
            if r.plain["vpcId"] == f"{vpc.name}-id"
        ]
        if closed != [([], [])]:
            yield f"{vpc.name}: the default security group is open"
        if not [r for r in stack.of("VpcEndpoint") if r.plain["vpcEndpointType"] == "Gateway"]:
            yield f"{vpc.name}: no S3 gateway"
    for subnet in stack.of("ec2/subnet:Subnet"):
        if subnet.plain["mapPublicIpOnLaunch"]:
            yield f"{subnet.name}: gives out public addresses"


def logs_go_where_they_end(stack: Recording) -> Iterator[str]:
    """ECS.9; the pack sees that every group ends."""
    groups = {r.plain["name"] for r in stack.of("LogGroup")}
    for definition, container in stack.containers():
        log = container["logConfiguration"]
        if log["logDriver"] != "awslogs" or log["options"]["awslogs-group"] not in groups:
            yield f"{definition.name}: logs to a group of nobody's"
    for database in stack.of("rds/instance:Instance"):
        for kind in database.plain["enabledCloudwatchLogsExports"]:
            if f"/aws/rds/instance/{database.plain['identifier']}/{kind}" not in groups:
                yield f"{database.name}: {kind} is kept forever"


def nothing_secret_is_in_plain_sight(stack: Recording) -> Iterator[str]:
    for version in stack.of("SecretVersion"):
        if not is_secret(version.inputs["secretString"]):
            yield f"{version.name}: readable in the state"
        if "secretString" not in version.ignored:
            yield f"{version.name}: a new value at every run"
    for database in stack.of("rds/instance:Instance"):
        if not is_secret(database.inputs["password"]):
            yield f"{database.name}: its password is readable in the state"
    passwords = {
        json.loads(v.plain["secretString"])["password"]
        for v in stack.of("SecretVersion")
        if isinstance(v.plain["secretString"], str)
    }
    for resource in stack.resources:
        if resource.type.endswith((":SecretVersion", ":Instance")):
            continue
        if any(p in text for text in strings(resource.plain) for p in passwords):
            yield f"{resource.name}: holds a password"
    if any(p in text for text in strings(stack.exports) for p in passwords):
        yield "the stack's outputs hold a password"


def databases_are_patched_backed_up_and_can_grow(stack: Recording) -> Iterator[str]:
    """RDS.9, RDS.11, RDS.13, RDS.17, RDS.38."""
    parameters = {
        r.plain.get("name", f"{r.name}-0123456"): r.plain for r in stack.of("ParameterGroup")
    }
    for database in stack.of("rds/instance:Instance"):
        have = database.plain
        for key in ("autoMinorVersionUpgrade", "copyTagsToSnapshot"):
            if have[key] is not True:
                yield f"{database.name}: {key} is {have[key]}"
        if have["backupRetentionPeriod"] < 7 or not have["enabledCloudwatchLogsExports"]:
            yield f"{database.name}: backups or logs are missing"
        if have["maxAllocatedStorage"] < 2 * have["allocatedStorage"]:
            yield f"{database.name}: its disk fills up"
        group = parameters[have["parameterGroupName"]]["parameters"]
        if {"name": "rds.force_ssl", "value": "1"} not in group:
            yield f"{database.name}: takes connections without TLS"


def trust_is_for_one_source(stack: Recording) -> Iterator[str]:
    for role in stack.of("Role"):
        for statement in role.document("assumeRolePolicy")["Statement"]:
            if not statement.get("Condition", {}).get("StringEquals"):
                yield f"{role.name}: {statement['Sid']} has no condition"
    for policy in stack.of("QueuePolicy"):
        for statement in policy.document("policy")["Statement"]:
            if "aws:SourceArn" not in json.dumps(statement.get("Condition")):
                yield f"{policy.name}: any account's rule may send"


def only_flow_roles_are_passed_by_the_worker(stack: Recording) -> Iterator[str]:
    for where, statements in stack.policies():
        for statement in statements:
            passes = "iam:PassRole" in statement["Action"]
            if not passes or "github" in where or "boundary" in where:
                continue
            roles = sorted(arn.rsplit("/", 1)[1] for arn in statement["Resource"])
            ends = [re.sub(r".*-(flows-\w+)-0123456", r"\1", role) for role in roles]
            if "worker-task" not in where or ends != ["flows-execution", "flows-task"]:
                yield f"{where}: passes {roles}"
            if statement["Condition"] != {
                "StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
            }:
                yield f"{where}: passes to any service"


def what_starts_a_task_is_not_what_it_may_do(stack: Recording) -> Iterator[str]:
    for definition in stack.of("TaskDefinition"):
        if definition.plain["executionRoleArn"] == definition.plain["taskRoleArn"]:
            yield f"{definition.name}: one role for both"


def services_heal_and_roll_back(stack: Recording) -> Iterator[str]:
    """ECS.10."""
    services = {service.name: service.plain for service in stack.of("ecs/service:Service")}
    for name, have in services.items():
        if have["deploymentCircuitBreaker"] != {"enable": True, "rollback": True}:
            yield f"{name}: a broken version stays"
        if have["platformVersion"] != "LATEST" or have["enableExecuteCommand"]:
            yield f"{name}: old platform, or open to ECS Exec"
        if have["waitForSteadyState"] != (have["desiredCount"] > 0):
            yield f"{name}: `up` doesn't wait for it"
    for definition, container in stack.containers():
        if not container["linuxParameters"]["initProcessEnabled"]:
            yield f"{definition.name}: no init, so signals are lost"
        serves = definition.name.removesuffix("-definition") + "-service"
        if serves in services and "healthCheck" not in container:
            yield f"{serves}: nobody asks how it is"


def alarms_are_heard_and_say_what_silence_means(stack: Recording) -> Iterator[str]:
    insights = any(
        r.plain["settings"] == [{"name": "containerInsights", "value": "enabled"}]
        for r in stack.of("ecs/cluster:Cluster")
    )
    alarms = stack.of("MetricAlarm")
    if stack.of("ecs/cluster:Cluster") and len(alarms) < 4:
        yield f"only {len(alarms)} alarms"
    for alarm in alarms:
        if not alarm.plain["alarmActions"] or not alarm.plain.get("treatMissingData"):
            yield f"{alarm.name}: not heard, or silent about silence"
        if alarm.plain["namespace"] == "ECS/ContainerInsights" and not insights:
            yield f"{alarm.name}: its metric doesn't exist here"


def images_never_move(stack: Recording) -> Iterator[str]:
    """ECR.1, ECR.2, ECR.3."""
    lifecycles = {r.plain["repository"] for r in stack.of("LifecyclePolicy")}
    for repository in stack.of("ecr/repository:Repository"):
        name = repository.plain["name"]
        moves = repository.plain["imageTagMutability"] != "IMMUTABLE"
        if moves and name != "trainyard/buildcache":
            yield f"{name}: tags can be moved"
        if not repository.plain["imageScanningConfiguration"]["scanOnPush"]:
            yield f"{name}: not scanned"
        if name not in lifecycles:
            yield f"{name}: grows forever"


def everything_has_a_parent_and_the_stacks_provider(stack: Recording) -> Iterator[str]:
    for resource in stack.resources:
        if resource.type.startswith("aws:") and "aws::" not in f"{resource.provider}":
            yield f"{resource.name}: not by the stack's provider"
        if resource.custom and resource.type.startswith("aws:") and not resource.parent:
            yield f"{resource.name}: nobody's child"


def generated_names_fit(stack: Recording) -> Iterator[str]:
    longest = {"iam/role:Role": 64, "s3/bucket:Bucket": 63, "rds/instance:Instance": 63}
    for kind, limit in longest.items():
        for resource in stack.of(kind):
            if len(resource.name) + 8 > limit:
                yield f"{resource.name}: longer than {limit} with its suffix"


def outputs_are_the_contract(stack: Recording) -> Iterator[str]:
    if "trainyard" in stack.exports:
        outputs = StackOutputs.model_validate(stack.exports["trainyard"])
        kept = stack.one("ssm/parameter:Parameter", "-outputs").document("value")
        if StackOutputs.model_validate(kept) != outputs:
            yield "the parameter and the output differ"


RULES = (
    documents_hold_no_null,
    buckets_have_all_that_makes_them_safe,
    only_https_leaves_and_only_the_network_comes_in,
    networks_are_closed_where_nobody_opened_them,
    logs_go_where_they_end,
    nothing_secret_is_in_plain_sight,
    databases_are_patched_backed_up_and_can_grow,
    trust_is_for_one_source,
    only_flow_roles_are_passed_by_the_worker,
    what_starts_a_task_is_not_what_it_may_do,
    services_heal_and_roll_back,
    alarms_are_heard_and_say_what_silence_means,
    images_never_move,
    everything_has_a_parent_and_the_stacks_provider,
    generated_names_fit,
    outputs_are_the_contract,
)
