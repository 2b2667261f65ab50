"""What the emulator does beyond MiniStack, where no container is needed to see it."""

from typing import Any

import boto3


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
