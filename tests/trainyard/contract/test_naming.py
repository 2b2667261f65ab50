"""Names: they fit, and no two stacks share one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.contract.naming import Location, Names

STACK = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
PARTS = ["prefect-migrate-execution", "artifacts-access-logs-bucket", "ecs-events"]


@given(STACK, st.sampled_from(PARTS))
def test_names_fit_with_what_pulumi_adds(stack: str, part: str) -> None:
    name = Names(stack)(part) + "-0123abc"
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name)


@given(STACK, STACK)
def test_two_stacks_never_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert Names(one).log_group("x") != Names(other).log_group("x")
        assert Names(one).parameter("x") != Names(other).parameter("x")
        assert Names(one).namespace != Names(other).namespace


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-central-1", "123456789012.dkr.ecr.eu-central-1.amazonaws.com"),
        ("aws-cn", "cn-north-1", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_places_name_their_partition(partition: str, region: str, host: str) -> None:
    place = Location(partition, "123456789012", region)
    assert place.registry() == host
    assert place.arn("sqs", "q") == f"arn:{partition}:sqs:{region}:123456789012:q"
    assert place.bucket_arn("b") == f"arn:{partition}:s3:::b"
