"""The pure parts: names, policy documents, subnets, sizes, what may run."""

import json
import re
from importlib.util import find_spec
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import iam
from infra.components.delivery_roles import subject
from infra.components.fargate import Container
from infra.components.network import subnet_cidrs
from infra.components.observability import (
    NEW_CHAMPION,
    RUN_MARKED_CRASHED,
    RUN_REPORTED_CRASHED,
)
from infra.naming import Location, Names
from infra.readiness import Ready, Servers, note, ready
from infra.sizes import MEMORY_OF, Size

STACK = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
PARTS = ["prefect-migrate-execution", "artifacts-access-logs-bucket", "ecs-events"]


# --- names ----------------------------------------------------------------------------------------
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


# --- policies -------------------------------------------------------------------------------------
def test_a_statement_leaves_out_what_is_empty() -> None:
    assert iam.allow("Read", "s3:GetObject", on=["arn:aws:s3:::b/*"]).rendered() == {
        "Sid": "Read",
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::b/*"],
    }


def test_everything_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="made by `anywhere`"):
        iam.allow("Read", "s3:GetObject", on=["*"])
    with pytest.raises(ValueError, match="why it can't be narrower"):
        iam.anywhere("Read", "s3:GetObject")
    with pytest.raises(ValueError, match="name the resources"):
        iam.allow("Read", "s3:GetObject", on=[])


def test_two_statements_of_one_name_are_refused() -> None:
    read = iam.allow("Read", "s3:GetObject", on=["arn:aws:s3:::b/*"])
    with pytest.raises(ValueError, match="different Sids"):
        iam.document(read, read)


def test_a_subject_is_githubs_immutable_form() -> None:
    assert subject("acme/rides", "11", "22", "prod") == "repo:acme@11/rides@22:environment:prod"


# --- network --------------------------------------------------------------------------------------
@given(st.integers(16, 22), st.integers(2, 3))
def test_subnets_lie_in_the_network_apart_from_each_other(size: int, zones: int) -> None:
    cidr = f"10.20.0.0/{size}"
    public, private = subnet_cidrs(cidr, zones)
    assert len(public) == len(private) == zones
    networks = [IPv4Network(each) for each in (*public, *private)]
    assert all(each.subnet_of(IPv4Network(cidr)) for each in networks)
    assert not any(a.overlaps(b) for a, b in combinations(networks, 2))


def test_a_third_zone_moves_no_subnet() -> None:
    two, three = subnet_cidrs("10.20.0.0/16", 2), subnet_cidrs("10.20.0.0/16", 3)
    assert all(more[:2] == fewer for fewer, more in zip(two, three, strict=True))


# --- tasks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("cpu", "memory"), [(256, 4096), (256, 256), (300, 512), (4096, 512)])
def test_pairs_that_fargate_lacks_are_refused(cpu: int, memory: int) -> None:
    with pytest.raises(ValueError, match="Fargate has no"):
        Size(cpu, memory)


@given(st.sampled_from([(c, m) for c, all_of in MEMORY_OF.items() for m in all_of]))
def test_pairs_that_fargate_has_are_taken(pair: tuple[int, int]) -> None:
    assert Size(*pair)


def test_a_container_without_an_image_names_none_that_could_start() -> None:
    assert (
        Container(image="", command=("true",)).definition("x", "g", "r")["image"] == "image-not-set"
    )


# --- readiness ------------------------------------------------------------------------------------
OWN = Servers(mlflow="m1", prefect="w1")


@pytest.mark.parametrize(
    ("noted", "servers", "worker", "expected"),
    [
        ({}, OWN, "w1", Ready(mlflow=False, prefect=False, worker=False)),
        (json.loads(note(OWN)), OWN, "w1", Ready(mlflow=True, prefect=True, worker=True)),
        (
            json.loads(note(OWN, registered=False)),
            OWN,
            "w1",
            Ready(mlflow=True, prefect=True, worker=False),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m2", prefect="w1"),
            "w1",
            Ready(mlflow=False, prefect=True, worker=True),
        ),
        (
            json.loads(note(OWN)),
            Servers(mlflow="m1", prefect="w2"),
            "w2",
            Ready(mlflow=True, prefect=False, worker=False),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "w1",
            Ready(mlflow=False, prefect=False, worker=True),
        ),
        (
            json.loads(note(Servers())),
            Servers(),
            "",
            Ready(mlflow=False, prefect=False, worker=False),
        ),
    ],
)
def test_a_service_runs_when_its_schema_and_its_api_are_there(
    noted: dict[str, object], servers: Servers, worker: str, expected: Ready
) -> None:
    assert ready(noted, servers, worker_image=worker) == expected


# --- what alarms look for in logs -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("prefect.runner._state_proposer", RUN_REPORTED_CRASHED),
        ("prefect_aws.observers.ecs", RUN_MARKED_CRASHED),
        ("flows.taxi.train", NEW_CHAMPION),
    ],
)
def test_what_is_logged_still_has_the_words_that_the_alarms_count(
    module: str, words: tuple[str, ...]
) -> None:
    """A test of flows/ looks at a failed run's log itself."""
    spec = find_spec(module)
    assert spec
    assert spec.origin
    lines = Path(spec.origin).read_text().splitlines()
    assert [line for line in lines if all(word in line for word in words)]
