"""Subnets: apart from each other, and where they were."""

from ipaddress import IPv4Network
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from infra.components.network import subnet_cidrs


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
