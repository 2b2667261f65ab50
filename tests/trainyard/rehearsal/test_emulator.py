"""What the emulator does beyond MiniStack, where no container is needed to see it."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from tests.infra.components.emulated_iam import HERE, client, refused
from trainyard.rehearsal.emulator_session import Session

pytestmark = pytest.mark.server

Call = Callable[[Any], Any]
Right = tuple[str, str, dict[str, Any] | None]  # action, resource, condition
ECS = f"arn:aws:ecs:us-east-1:{HERE}"


def ec2_of(url: str, invocation: str) -> Any:
    """A client whose calls are attempts of one invocation."""
    root = boto3.Session("test", "test", region_name="us-east-1")
    ec2 = root.client("ec2", endpoint_url=url)

    def attempt(request: Any, **_: Any) -> None:
        del request.headers["amz-sdk-invocation-id"]
        request.headers["amz-sdk-invocation-id"] = invocation

    ec2.meta.events.register("before-send.ec2", attempt)
    return ec2


def test_a_repeated_call_takes_effect_once(url: str) -> None:
    first, again, other = (
        ec2_of(url, name).create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        for name in ("one", "one", "two")
    )
    assert first == again != other
    vpcs = ec2_of(url, "look").describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.9.0.0/16"]}])
    assert sorted(v["VpcId"] for v in vpcs["Vpcs"]) == sorted({first, other})


def test_a_refused_call_may_be_repeated(url: str) -> None:
    ec2 = ec2_of(url, "three")
    for cidr in ("nonsense", "10.8.0.0/16"):
        try:
            made = ec2.create_vpc(CidrBlock=cidr)["Vpc"]
        except ec2.exceptions.ClientError:
            assert cidr == "nonsense"
    assert made["CidrBlock"] == "10.8.0.0/16"


# --- what IAM is asked ----------------------------------------------------------------------------
CLUSTER, DEFINITION = f"{ECS}:cluster/c", f"{ECS}:task-definition/job:1"
ON_CLUSTER = {"StringEquals": {"ecs:cluster": CLUSTER}}
TO_TASKS = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
PASS = {
    name: ("iam:PassRole", f"arn:aws:iam::{HERE}:role/{name}", TO_TASKS)
    for name in ("execution", "task", "other")
}
RUN = ("ecs:RunTask", DEFINITION, ON_CLUSTER)
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
CONTAINERS = [{"name": "main", "image": "x", "memory": 128}]


def run_task(client: Any, **given: Any) -> None:
    client("ecs").run_task(cluster="c", taskDefinition="job", **given)


# What a call needs, all of it: no right is asked on more than its resource, and none isn't asked.
NEEDED: dict[str, tuple[Call, list[Right]]] = {
    "a task, with its definition's roles": (run_task, [RUN, PASS["task"], PASS["execution"]]),
    "a task with another role": (
        lambda c: run_task(c, overrides={"taskRoleArn": PASS["other"][1]}),
        [RUN, PASS["other"], PASS["execution"]],
    ),
    "a task with tags": (
        lambda c: run_task(c, tags=[{"key": "k", "value": "v"}]),
        [
            RUN,
            PASS["task"],
            PASS["execution"],
            (
                "ecs:TagResource",
                f"{ECS}:task/c/*",
                {"StringEquals": {"ecs:CreateAction": "RunTask"}},
            ),
        ],
    ),
    "a stopped task": (
        lambda c: c("ecs").stop_task(cluster="c", task="1"),
        [("ecs:StopTask", f"{ECS}:task/c/1", ON_CLUSTER)],
    ),
    "a service": (
        lambda c: c("ecs").update_service(cluster="c", service="web", desiredCount=0),
        [("ecs:UpdateService", f"{ECS}:service/c/web", ON_CLUSTER)],
    ),
    "a definition, with its roles": (
        lambda c: c("ecs").register_task_definition(
            family="new",
            taskRoleArn=PASS["task"][1],
            executionRoleArn=PASS["execution"][1],
            containerDefinitions=CONTAINERS,
        ),
        [
            ("ecs:RegisterTaskDefinition", f"{ECS}:task-definition/new:*", None),
            PASS["task"],
            PASS["execution"],
        ],
    ),
    "a call by TLS": (
        lambda c: c("sns").list_topics(),
        [("sns:ListTopics", "*", {"Bool": {"aws:SecureTransport": "true"}})],
    ),
    "a budget": (
        lambda c: c("budgets").delete_budget(AccountId=HERE, BudgetName="b"),
        [("budgets:ModifyBudget", f"arn:aws:budgets::{HERE}:budget/b", None)],
    ),
    "a look at a budget": (
        lambda c: c("budgets").describe_budget(AccountId=HERE, BudgetName="b"),
        [("budgets:ViewBudget", f"arn:aws:budgets::{HERE}:budget/b", None)],
    ),
    "parameters by path": (
        lambda c: c("ssm").get_parameters_by_path(Path="/a/b"),
        [("ssm:GetParametersByPath", f"arn:aws:ssm:us-east-1:{HERE}:parameter/a/b", None)],
    ),
    "a database's subnets": (
        lambda c: c("rds").delete_db_subnet_group(DBSubnetGroupName="g"),
        [("rds:DeleteDBSubnetGroup", f"arn:aws:rds:us-east-1:{HERE}:subgrp:g", None)],
    ),
    "a database's parameters": (
        lambda c: c("rds").delete_db_parameter_group(DBParameterGroupName="g"),
        [("rds:DeleteDBParameterGroup", f"arn:aws:rds:us-east-1:{HERE}:pg:g", None)],
    ),
    "alarms": (
        lambda c: c("cloudwatch").delete_alarms(AlarmNames=["a"]),
        [("cloudwatch:DeleteAlarms", f"arn:aws:cloudwatch:us-east-1:{HERE}:alarm:a", None)],
    ),
    "a dashboard": (
        lambda c: c("cloudwatch").get_dashboard(DashboardName="d"),
        [("cloudwatch:GetDashboard", f"arn:aws:cloudwatch::{HERE}:dashboard/d", None)],
    ),
    "an image": (
        lambda c: c("ecr").batch_get_image(repositoryName="flow", imageIds=[{"imageTag": "1"}]),
        [("ecr:BatchGetImage", f"arn:aws:ecr:us-east-1:{HERE}:repository/flow", None)],
    ),
    "a rule": (
        lambda c: c("events").delete_rule(Name="r"),
        [("events:DeleteRule", f"arn:aws:events:us-east-1:{HERE}:rule/r", None)],
    ),
    "a rule's targets": (
        lambda c: c("events").list_targets_by_rule(Rule="r"),
        [("events:ListTargetsByRule", f"arn:aws:events:us-east-1:{HERE}:rule/r", None)],
    ),
}


@pytest.fixture(scope="module")
def job(url: str) -> None:
    """A cluster, and a task definition with roles."""
    for name in PASS:
        client(url, "iam").create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    ecs = client(url, "ecs")
    ecs.create_cluster(clusterName="c")
    ecs.register_task_definition(
        family="job",
        taskRoleArn=PASS["task"][1],
        executionRoleArn=PASS["execution"][1],
        containerDefinitions=CONTAINERS,
    )


def allowed(url: str, call: Call, rights: list[Right]) -> bool:
    """Whether a user with these rights is let through."""
    statements = [
        {"Effect": "Allow", "Action": action, "Resource": on, "Condition": condition or {}}
        for action, on, condition in rights
    ]
    iam, name = client(url, "iam"), str(uuid.uuid4())
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    if rights:
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    given = {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    return not refused(lambda: call(lambda service: client(url, service, **given)))


@pytest.mark.parametrize("what", NEEDED)
def test_a_call_needs_these_rights_and_each_of_them(url: str, job: None, what: str) -> None:
    call, rights = NEEDED[what]
    assert allowed(url, call, rights)
    for lacking in rights:
        assert not allowed(url, call, [r for r in rights if r != lacking]), lacking


def test_a_right_on_one_cluster_is_none_on_another(url: str, job: None) -> None:
    rights = [RUN, PASS["task"], PASS["execution"]]
    assert not allowed(url, lambda c: c("ecs").run_task(cluster="d", taskDefinition="job"), rights)


# --- tags in conditions --------------------------------------------------------------------------
# AWS's service authorization reference for EC2: on which resources a call is authorized, and with
# which of them aws:RequestTag and aws:ResourceTag go.
EC2 = f"arn:aws:ec2:us-east-1:{HERE}"
TAGS = [{"Key": "stack", "Value": "dev"}]
ASKED_FOR = {"StringEquals": {"aws:RequestTag/stack": "dev"}}
ITS_OWN = {"StringEquals": {"aws:ResourceTag/stack": "dev"}}


@dataclass(frozen=True)
class Network:
    """A stack's network, tagged with it."""

    vpc: str
    subnet: str
    table: str
    association: str
    gateway: str
    group: str
    rule: str
    address: str


@pytest.fixture(scope="module")
def networks(url: str) -> dict[str, Network]:
    """Two stacks' networks: `dev`, and `dev2`, of whose name the other's is a part."""
    return {stack: made_network(client(url, "ec2"), stack) for stack in ("dev", "dev2")}


def made_network(ec2: Any, stack: str) -> Network:
    def of(kind: str) -> dict[str, Any]:
        tags = [{"Key": "stack", "Value": stack}]
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}

    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16", **of("vpc"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24", **of("subnet"))["Subnet"]
    table = ec2.create_route_table(VpcId=vpc, **of("route-table"))["RouteTable"]["RouteTableId"]
    gateway = ec2.create_internet_gateway(**of("internet-gateway"))["InternetGateway"]
    group = ec2.create_security_group(
        GroupName=stack, Description="x", VpcId=vpc, **of("security-group")
    )["GroupId"]
    rule = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[port(443)], **of("security-group-rule")
    )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    joined = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
    return Network(
        vpc=vpc,
        subnet=subnet["SubnetId"],
        table=table,
        association=joined["AssociationId"],
        gateway=gateway["InternetGatewayId"],
        group=group,
        rule=rule,
        address=ec2.allocate_address(Domain="vpc", **of("elastic-ip"))["AllocationId"],
    )


def port(number: int) -> dict[str, Any]:
    ranges = [{"CidrIp": "10.7.0.0/16"}]
    return {"IpProtocol": "tcp", "FromPort": number, "ToPort": number, "IpRanges": ranges}


def new(kind: str) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": TAGS}]}


def making(action: str, kind: str, *others: str) -> list[Right]:
    """What it takes to make a tagged resource: of its kind, on others, and its tags."""
    tagged = {"StringEquals": {"ec2:CreateAction": action, "aws:RequestTag/stack": "dev"}}
    return [
        (f"ec2:{action}", f"{EC2}:{kind}/*", ASKED_FOR),
        *((f"ec2:{action}", f"{EC2}:{each}/*", ITS_OWN) for each in others),
        ("ec2:CreateTags", f"{EC2}:{kind}/*", tagged),
    ]


def on(action: str, *kinds: str) -> list[Right]:
    """What it takes to change resources."""
    return [(f"ec2:{action}", f"{EC2}:{kind}/*", ITS_OWN) for kind in kinds]


NETWORK_CALLS: dict[str, tuple[Callable[[Any, Network], Any], list[Right]]] = {
    "a VPC": (
        lambda ec2, _: ec2.create_vpc(CidrBlock="10.6.0.0/16", **new("vpc")),
        making("CreateVpc", "vpc"),
    ),
    "a subnet": (
        lambda ec2, n: ec2.create_subnet(VpcId=n.vpc, CidrBlock="10.7.2.0/24", **new("subnet")),
        making("CreateSubnet", "subnet", "vpc"),
    ),
    "a route table": (
        lambda ec2, n: ec2.create_route_table(VpcId=n.vpc, **new("route-table")),
        making("CreateRouteTable", "route-table", "vpc"),
    ),
    "an internet gateway": (
        lambda ec2, _: ec2.create_internet_gateway(**new("internet-gateway")),
        making("CreateInternetGateway", "internet-gateway"),
    ),
    "an address": (
        lambda ec2, _: ec2.allocate_address(Domain="vpc", **new("elastic-ip")),
        making("AllocateAddress", "elastic-ip"),
    ),
    "a NAT gateway": (
        lambda ec2, n: ec2.create_nat_gateway(
            SubnetId=n.subnet, AllocationId=n.address, **new("natgateway")
        ),
        making("CreateNatGateway", "natgateway", "subnet", "elastic-ip"),
    ),
    "a security group": (
        lambda ec2, n: ec2.create_security_group(
            GroupName=str(uuid.uuid4()), Description="x", VpcId=n.vpc, **new("security-group")
        ),
        making("CreateSecurityGroup", "security-group", "vpc"),
    ),
    "an endpoint": (
        lambda ec2, n: ec2.create_vpc_endpoint(
            VpcId=n.vpc,
            ServiceName="com.amazonaws.us-east-1.s3",
            RouteTableIds=[n.table],
            **new("vpc-endpoint"),
        ),
        making("CreateVpcEndpoint", "vpc-endpoint", "vpc", "route-table"),
    ),
    "a rule": (
        lambda ec2, n: ec2.authorize_security_group_egress(
            GroupId=n.group, IpPermissions=[port(80)], **new("security-group-rule")
        ),
        [
            *on("AuthorizeSecurityGroupEgress", "security-group"),
            making("AuthorizeSecurityGroupEgress", "security-group-rule")[-1],
        ],
    ),
    "a changed rule": (
        lambda ec2, n: ec2.modify_security_group_rules(
            GroupId=n.group,
            SecurityGroupRules=[
                {
                    "SecurityGroupRuleId": n.rule,
                    "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1},
                }
            ],
        ),
        on("ModifySecurityGroupRules", "security-group", "security-group-rule"),
    ),
    "a gateway of a VPC": (
        lambda ec2, n: ec2.attach_internet_gateway(InternetGatewayId=n.gateway, VpcId=n.vpc),
        on("AttachInternetGateway", "internet-gateway", "vpc"),
    ),
    "a route": (
        lambda ec2, n: ec2.create_route(
            RouteTableId=n.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=n.gateway
        ),
        on("CreateRoute", "route-table"),
    ),
    "a subnet's table": (
        lambda ec2, n: ec2.associate_route_table(RouteTableId=n.table, SubnetId=n.subnet),
        on("AssociateRouteTable", "route-table", "subnet"),
    ),
    "a subnet without its table": (
        lambda ec2, n: ec2.disassociate_route_table(AssociationId=n.association),
        on("DisassociateRouteTable", "route-table", "subnet"),
    ),
    "a VPC's names": (
        lambda ec2, n: ec2.modify_vpc_attribute(VpcId=n.vpc, EnableDnsSupport={"Value": True}),
        on("ModifyVpcAttribute", "vpc"),
    ),
    "an address given back": (
        lambda ec2, n: ec2.release_address(AllocationId=n.address),
        on("ReleaseAddress", "elastic-ip"),
    ),
    "another tag": (
        lambda ec2, n: ec2.create_tags(Resources=[n.vpc], Tags=TAGS),
        [
            (
                "ec2:CreateTags",
                f"{EC2}:vpc/*",
                {
                    "StringEquals": {"aws:ResourceTag/stack": "dev", "aws:RequestTag/stack": "dev"},
                    "ForAllValues:StringEquals": {"aws:TagKeys": ["stack"]},
                },
            )
        ],
    ),
    "a tag less": (
        lambda ec2, n: ec2.delete_tags(Resources=[n.subnet], Tags=[{"Key": "other"}]),
        [
            (
                "ec2:DeleteTags",
                f"{EC2}:subnet/*",
                {**ITS_OWN, "ForAllValues:StringNotEquals": {"aws:TagKeys": ["stack"]}},
            )
        ],
    ),
    "no group": (
        lambda ec2, n: ec2.delete_security_group(GroupId=n.group),
        on("DeleteSecurityGroup", "security-group"),
    ),
}


@pytest.mark.parametrize("what", NETWORK_CALLS)
def test_a_call_on_a_network_needs_a_right_on_each_resource_by_its_tags(
    url: str, networks: dict[str, Network], what: str
) -> None:
    call, rights = NETWORK_CALLS[what]
    for lacking in rights:
        others = [right for right in rights if right != lacking]
        assert not allowed(url, lambda c: call(c("ec2"), networks["dev"]), others), lacking
    if any(condition == ITS_OWN for _, _, condition in rights):
        assert not allowed(url, lambda c: call(c("ec2"), networks["dev2"]), rights)
    assert allowed(url, lambda c: call(c("ec2"), networks["dev"]), rights)


def test_a_new_resource_has_to_come_with_the_tag(url: str) -> None:
    rights = making("CreateVpc", "vpc")
    other = [{"ResourceType": "vpc", "Tags": [{"Key": "stack", "Value": "dev2"}]}]
    for given in ({}, {"TagSpecifications": other}):
        assert not allowed(
            url,
            lambda c, given=given: c("ec2").create_vpc(CidrBlock="10.6.0.0/16", **given),
            rights,
        )


# --- a token of GitHub's -------------------------------------------------------------------------
def test_a_trust_policy_may_ask_for_the_branch(url: str) -> None:
    host = "token.actions.githubusercontent.com"
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{HERE}:oidc-provider/{host}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{host}:ref": "refs/heads/main"}},
    }
    role = client(url, "iam").create_role(
        RoleName=str(uuid.uuid4()),
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )["Role"]["Arn"]
    session = Session(home=Path(), port=int(url.rsplit(":", 1)[1]))

    def take(**claims: str) -> None:
        session.take_role(role, "repo:acme@11/rides@22:environment:dev", **claims)

    assert not refused(lambda: take(ref="refs/heads/main"))
    assert refused(lambda: take(ref="refs/heads/other"))
    assert refused(lambda: take(ref=""))


# --- images ---------------------------------------------------------------------------------------
def test_docker_pushes_to_the_account_that_made_the_repository_last(url: str) -> None:
    repository, made = f"r-{uuid.uuid4()}", []
    for account in (HERE, "111122223333"):
        key = {"aws_access_key_id": account, "aws_secret_access_key": "test"}
        made.append(client(url, "ecr", **key))
        made[-1].create_repository(repositoryName=repository)
        page = f"{url}/v2/{repository}/manifests/of-{account}"
        httpx.put(page, content=f'{{"schemaVersion": 2, "of": "{account}"}}').raise_for_status()
    for ecr, account in zip(made, (HERE, "111122223333"), strict=True):
        (image,) = ecr.describe_images(repositoryName=repository)["imageDetails"]
        assert image["imageTags"] == [f"of-{account}"]
