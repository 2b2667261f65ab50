"""Costs: every resource is priced or known to be free, and the smallest stack stays small."""

import dataclasses

import pytest

from infra import cost
from infra.settings import PROFILES
from tests.infra.test_stacks import STACKS, stack


@pytest.mark.parametrize("name", STACKS)
def test_every_resource_is_priced_or_known_to_be_free(name: str) -> None:
    assert cost.idle_cost(stack(name)) is not None


def test_a_resource_without_a_price_is_refused() -> None:
    made = stack("minimal")
    new = dataclasses.replace(made.of("Queue")[0], type="aws:elasticache/cluster:Cluster")
    with pytest.raises(LookupError, match="elasticache/cluster has no price"):
        cost.idle_cost(dataclasses.replace(made, resources=[*made.resources, new]))


def test_minimal_idles_under_40_dollars_with_database_worker_and_tracking_server() -> None:
    made = cost.running(profile="minimal", **cost.CLOUD)
    assert {r.plain["desiredCount"] for r in made.of("ecs/service:Service")} == {1}
    assert made.of("rds/instance:Instance")
    assert sum(item.usd for item in cost.idle_cost(made)) < 40


def test_a_dearer_profile_is_dearer() -> None:
    totals = [
        sum(i.usd for i in cost.idle_cost(cost.running(profile=p, **cost.CLOUD))) for p in PROFILES
    ]
    assert totals == sorted(totals)


def test_every_database_that_a_profile_picks_has_a_price() -> None:
    for profile in PROFILES.values():
        assert profile.database_class in cost.PRICES["rds_hour"]
