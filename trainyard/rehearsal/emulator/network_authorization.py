"""What IAM is asked when EC2 is called: each resource that AWS's service authorization reference names, with that resource's tags.

A call that makes something is authorized on the new resource with aws:RequestTag, on each resource that it names with aws:ResourceTag,
and as ec2:CreateTags on the new one where it comes with tags (ec2:CreateAction). MiniStack asks once, on the first id that it finds.
"""

import re

from ministack.core.responses import get_account_id, get_region
from ministack.services import ec2

KINDS = {
    "eipalloc": "elastic-ip",
    "fl": "vpc-flow-log",
    "igw": "internet-gateway",
    "nat": "natgateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vpc": "vpc",
    "vpce": "vpc-endpoint",
}
# What a call makes. A rule of a security group is authorized on its group; only its tags are its own.
NEW = {
    "AllocateAddress": "elastic-ip",
    "CreateFlowLogs": "vpc-flow-log",
    "CreateInternetGateway": "internet-gateway",
    "CreateNatGateway": "natgateway",
    "CreateRouteTable": "route-table",
    "CreateSecurityGroup": "security-group",
    "CreateSubnet": "subnet",
    "CreateVpc": "vpc",
    "CreateVpcEndpoint": "vpc-endpoint",
}
NAMED = re.compile(
    r"((Add|Remove)?(Allocation|FlowLog|Group|InternetGateway|NatGateway|Resource|RouteTable|SecurityGroup|Subnet|Vpc|VpcEndpoint)Id"
    r"|SecurityGroupRule\.\d+\.SecurityGroupRuleId)(\.\d+)?"
)
TAG = re.compile(r"(TagSpecification\.\d+)\.Tag\.\d+\.Key")


def checks(given):
    """The resource that a call is authorized on first, its condition keys, and what else it needs; None for one that only looks.

    Args:
        given: the call's parameters, a value each.
    """
    action = given.get("Action", "")
    if re.match("Describe|Get", action):
        return None
    ids = [value for name, value in sorted(given.items()) if NAMED.fullmatch(name)]
    if "Route" in action and "RouteTable" not in action:  # where a route leads isn't asked for
        ids = [given.get("RouteTableId", "")]
    ids += associated(given.get("AssociationId"))
    needed = [(action, arn(kind(each), each), tags_of(each)) for each in ids if kind(each)]
    asked = requested(given)
    if made := NEW.get(action):
        needed.insert(0, (action, arn(made), asked.get(made, {})))
    for of, tags in asked.items():
        needed.append(("CreateTags", arn(of), {**tags, "ec2:CreateAction": action}))
    return needed or None


def arn(of, name="*"):
    return f"arn:aws:ec2:{get_region()}:{get_account_id()}:{of}/{name}"


def kind(name):
    return KINDS.get(name.rsplit("-", 1)[0])


def tags_of(name):
    return {
        f"aws:resourcetag/{tag['Key']}".lower(): tag["Value"] for tag in ec2._tags.get(name, [])
    }


def requested(given):
    """The tags that a call comes with, by the kind of resource that they are for, as condition keys."""
    tags = {}
    for name, tag in given.items():
        if found := TAG.fullmatch(name):
            of_kind = tags.setdefault(given[f"{found[1]}.ResourceType"], {})
            of_kind[tag] = given.get(f"{name.removesuffix('Key')}Value", "")
    return {
        of: {
            **{f"aws:requesttag/{tag}".lower(): value for tag, value in found.items()},
            "aws:tagkeys": list(found),
        }
        for of, found in tags.items()
    }


def associated(association):
    """What an association is between."""
    if not association:
        return []
    tables = [(a, t) for t in ec2._route_tables.values() for a in t["Associations"]]
    for each, table in tables:
        if each["RouteTableAssociationId"] == association:
            return [table["RouteTableId"], *filter(None, [each.get("SubnetId")])]
    addresses = ec2._addresses.values()
    return [a["AllocationId"] for a in addresses if a.get("AssociationId") == association]
