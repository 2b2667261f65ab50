"""What holds for every stack, whatever its settings: each function lists what breaks its rule.

The ids are of the rules that AWS Security Hub (FSBP) or CIS 7.0 check for, where there is one.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from infra.iam import UNSCOPED
from infra.outputs import StackOutputs
from infra.recorder import Recording, is_secret

Rule = Callable[[Recording], Iterator[str]]
RULES: list[Rule] = []
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|AUTH_STRING|CREDENTIAL")


def rule(check: Rule) -> Rule:
    """Add a rule to the list."""
    RULES.append(check)
    return check


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


@rule
def documents_hold_no_null(stack: Recording) -> Iterator[str]:
    for resource in stack.resources:
        for text in strings(resource.plain):
            if text.startswith(("{", "[")) and nulls(json.loads(text)):
                yield f"{resource.name}: {text}"
            if "None" in text:
                yield f"{resource.name}: {text}"


@rule
def buckets_are_private_encrypted_versioned_and_tls_only(stack: Recording) -> Iterator[str]:
    """S3.1, S3.5, S3.8, S3.12, S3.13, S3.14, S3.17."""

    def of(kind: str) -> dict[str, dict[str, Any]]:
        return {r.plain["bucket"]: r.plain for r in stack.of(kind)}

    blocks, owners = of("BucketPublicAccessBlock"), of("BucketOwnershipControls")
    versions, lifecycles = of("BucketVersioning"), of("BucketLifecycleConfiguration")
    encryptions = of("BucketServerSideEncryptionConfiguration")
    policies = of("BucketPolicy")
    for bucket in stack.of("s3/bucket:Bucket"):
        name = f"{bucket.name}-0123456"
        block = blocks.get(name, {})
        if not all(
            block.get(k)
            for k in (
                "blockPublicAcls",
                "blockPublicPolicy",
                "ignorePublicAcls",
                "restrictPublicBuckets",
            )
        ):
            yield f"{name}: public access isn't blocked"
        if owners[name]["rule"] != {"objectOwnership": "BucketOwnerEnforced"}:
            yield f"{name}: ACLs are on"
        if versions[name]["versioningConfiguration"] != {"status": "Enabled"}:
            yield f"{name}: not versioned"
        if not encryptions[name]["rules"]:
            yield f"{name}: not encrypted"
        rules = lifecycles[name]["rules"]
        if not any("abortIncompleteMultipartUpload" in each for each in rules):
            yield f"{name}: abandoned uploads stay"
        denied = list(json.loads(policies[name]["policy"])["Statement"])
        if not any(
            s["Effect"] == "Deny"
            and s["Principal"] == "*"
            and s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            and len(s["Resource"]) == 2
            for s in denied
        ):
            yield f"{name}: answers without TLS"


@rule
def only_https_leaves_for_everywhere_and_nothing_comes_in(stack: Recording) -> Iterator[str]:
    """EC2.13, EC2.14, EC2.18, EC2.19."""
    for group in stack.of("ec2/securityGroup:SecurityGroup"):
        if group.plain.keys() & {"ingress", "egress"}:
            yield f"{group.name}: rules inside the group"
        if not group.plain.get("description"):
            yield f"{group.name}: not described"
    vpcs = {r.plain["cidrBlock"] for r in stack.of("Vpc")}
    for each in stack.of("SecurityGroupIngressRule"):
        source = each.plain.get("cidrIpv4")
        if not each.plain.get("description"):
            yield f"{each.name}: not described"
        if source is not None and source not in vpcs:
            yield f"{each.name}: lets {source} in"
    for each in stack.of("SecurityGroupEgressRule"):
        ports = (each.plain["fromPort"], each.plain["toPort"])
        if "cidrIpv4" in each.plain and ports != (443, 443):
            yield f"{each.name}: {ports} to {each.plain['cidrIpv4']}"


@rule
def networks_are_closed_where_nobody_opened_them(stack: Recording) -> Iterator[str]:
    """EC2.2, EC2.15."""
    for vpc in stack.of("Vpc"):
        closed = [
            r.plain
            for r in stack.of("DefaultSecurityGroup")
            if r.plain["vpcId"] == f"{vpc.name}-id"
        ]
        if [(c["ingress"], c["egress"]) for c in closed] != [([], [])]:
            yield f"{vpc.name}: the default security group is open"
        if not [r for r in stack.of("VpcEndpoint") if r.plain["vpcEndpointType"] == "Gateway"]:
            yield f"{vpc.name}: no S3 gateway"
    for subnet in stack.of("ec2/subnet:Subnet"):
        if subnet.plain["mapPublicIpOnLaunch"]:
            yield f"{subnet.name}: gives out public addresses"


@rule
def containers_are_confined(stack: Recording) -> Iterator[str]:
    """ECS.4, ECS.5, ECS.9, ECS.20. The tunnel is the one exception, and it is not a service."""
    for definition, container in stack.containers():
        where = f"{definition.name}/{container['name']}"
        if container.get("privileged"):
            yield f"{where}: privileged"
        if container["logConfiguration"]["logDriver"] != "awslogs":
            yield f"{where}: not logged"
        if not container["linuxParameters"]["initProcessEnabled"]:
            yield f"{where}: no init, so signals are lost"
        if container["linuxParameters"]["capabilities"] != {"drop": ["ALL"]}:
            yield f"{where}: has capabilities"
        if container["name"] == "tunnel":
            continue
        if not container.get("readonlyRootFilesystem"):
            yield f"{where}: may write its root"
        if container.get("user", "0").split(":")[0] in ("0", "root"):
            yield f"{where}: runs as root"


@rule
def nothing_secret_is_in_plain_sight(stack: Recording) -> Iterator[str]:
    """ECS.8."""
    for definition, container in stack.containers():
        for variable in container["environment"]:
            if SECRET_NAME.search(variable["name"]):
                yield f"{definition.name}: {variable['name']} in its environment"
        for secret in container["secrets"]:
            if not secret["valueFrom"].startswith("arn:aws:secretsmanager:"):
                yield f"{definition.name}: {secret['name']} from {secret['valueFrom']}"
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


@rule
def databases_are_private_encrypted_and_backed_up(stack: Recording) -> Iterator[str]:
    """RDS.2, RDS.3, RDS.9, RDS.11, RDS.13, RDS.17, RDS.38."""
    parameters = {
        r.plain.get("name", f"{r.name}-0123456"): r.plain for r in stack.of("ParameterGroup")
    }
    for database in stack.of("rds/instance:Instance"):
        have = database.plain
        for key, wanted in {
            "publiclyAccessible": False,
            "storageEncrypted": True,
            "autoMinorVersionUpgrade": True,
            "copyTagsToSnapshot": True,
        }.items():
            if have[key] is not wanted:
                yield f"{database.name}: {key} is {have[key]}"
        if have["backupRetentionPeriod"] < 7 or not have["enabledCloudwatchLogsExports"]:
            yield f"{database.name}: backups or logs are missing"
        group = parameters[have["parameterGroupName"]]["parameters"]
        if {"name": "rds.force_ssl", "value": "1"} not in group:
            yield f"{database.name}: takes connections without TLS"


@rule
def every_log_ends(stack: Recording) -> Iterator[str]:
    """CloudWatch.16."""
    groups = {r.plain["name"]: r for r in stack.of("LogGroup")}
    for name, group in groups.items():
        if not group.plain.get("retentionInDays"):
            yield f"{name}: kept forever"
    for definition, container in stack.containers():
        if container["logConfiguration"]["options"]["awslogs-group"] not in groups:
            yield f"{definition.name}: logs to a group of nobody's"
    for database in stack.of("rds/instance:Instance"):
        for kind in database.plain["enabledCloudwatchLogsExports"]:
            if f"/aws/rds/instance/{database.plain['identifier']}/{kind}" not in groups:
                yield f"{database.name}: {kind} is kept forever"


@rule
def queues_are_encrypted_and_take_from_one_source(stack: Recording) -> Iterator[str]:
    """SQS.1, SQS.3."""
    for queue in stack.of("Queue"):
        if not queue.plain.get("sqsManagedSseEnabled"):
            yield f"{queue.name}: not encrypted"
    for policy in stack.of("QueuePolicy"):
        for statement in policy.document("policy")["Statement"]:
            if "aws:SourceArn" not in json.dumps(statement.get("Condition")):
                yield f"{policy.name}: any account's rule may send"


@rule
def policies_are_narrow(stack: Recording) -> Iterator[str]:
    """IAM.1, IAM.21. A statement on `*` has its reason in infra/iam.py."""
    for where, statements in stack.policies():
        for statement in statements:
            if statement["Effect"] == "Deny" or where.startswith("Key "):
                continue
            if any(a == "*" or a.endswith(":*") for a in statement["Action"]):
                yield f"{where}: {statement['Sid']} allows {statement['Action']}"
            if statement.get("Principal") == "*":
                yield f"{where}: {statement['Sid']} is for everyone"
            if "*" in statement.get("Resource", []) and statement["Sid"] not in UNSCOPED:
                yield f"{where}: {statement['Sid']} is for everything"


@rule
def trust_is_for_this_account_only(stack: Recording) -> Iterator[str]:
    for role in stack.of("Role"):
        for statement in role.document("assumeRolePolicy")["Statement"]:
            if not statement.get("Condition", {}).get("StringEquals"):
                yield f"{role.name}: {statement['Sid']} has no condition"


@rule
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


@rule
def what_starts_a_task_is_not_what_it_may_do(stack: Recording) -> Iterator[str]:
    for definition in stack.of("TaskDefinition"):
        if definition.plain["executionRoleArn"] == definition.plain["taskRoleArn"]:
            yield f"{definition.name}: one role for both"


@rule
def services_heal_and_roll_back(stack: Recording) -> Iterator[str]:
    """ECS.10."""
    for service in stack.of("ecs/service:Service"):
        have = service.plain
        if have["deploymentCircuitBreaker"] != {"enable": True, "rollback": True}:
            yield f"{service.name}: a broken version stays"
        if have["platformVersion"] != "LATEST" or have["enableExecuteCommand"]:
            yield f"{service.name}: old platform, or open to ECS Exec"
        if have["waitForSteadyState"] != (have["desiredCount"] > 0):
            yield f"{service.name}: `up` doesn't wait for it"
    for definition, container in stack.containers():
        serves = definition.name.removesuffix("-definition") + "-service"
        served = any(s.name == serves for s in stack.of("ecs/service:Service"))
        if served and "healthCheck" not in container:
            yield f"{serves}: nobody asks how it is"


@rule
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


@rule
def keys_rotate(stack: Recording) -> Iterator[str]:
    """KMS.4."""
    for key in stack.of("kms/key:Key"):
        if not key.plain["enableKeyRotation"]:
            yield f"{key.name}: never rotated"


@rule
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


@rule
def everything_has_a_parent_and_the_stacks_provider(stack: Recording) -> Iterator[str]:
    for resource in stack.resources:
        if resource.type.startswith("aws:") and "aws::" not in f"{resource.provider}":
            yield f"{resource.name}: not by the stack's provider"
        if resource.custom and resource.type.startswith("aws:") and not resource.parent:
            yield f"{resource.name}: nobody's child"


@rule
def generated_names_fit(stack: Recording) -> Iterator[str]:
    longest = {"iam/role:Role": 64, "s3/bucket:Bucket": 63, "rds/instance:Instance": 63}
    for kind, limit in longest.items():
        for resource in stack.of(kind):
            if len(resource.name) + 8 > limit:
                yield f"{resource.name}: longer than {limit} with its suffix"


@rule
def outputs_are_the_contract(stack: Recording) -> Iterator[str]:
    if "trainyard" in stack.exports:
        outputs = StackOutputs.model_validate(stack.exports["trainyard"])
        kept = stack.one("ssm/parameter:Parameter", "-outputs").document("value")
        if StackOutputs.model_validate(kept) != outputs:
            yield "the parameter and the output differ"


def broken(stack: Recording) -> list[str]:
    """Everything that breaks a rule."""
    return [f"{check.__name__}: {fault}" for check in RULES for fault in check(stack)]
