"""Costs: every resource is priced or known to be free, and the smallest stack stays small."""

import dataclasses
from pathlib import Path

import pytest

from infra.estimate import cost
from tests.infra.example_stacks import STACKS, stack
from trainyard.contract.profiles import PROFILES


@pytest.mark.parametrize("name", STACKS)
def test_every_resource_is_priced_or_known_to_be_free(name: str) -> None:
    bill = cost.idle_cost(stack(name))
    assert all(item.usd > 0 for item in bill)
    # An account without environments idles for free; each environment has alarms and secrets.
    assert bool(bill) is (name != "account")


def test_a_resource_without_a_price_is_refused() -> None:
    made = stack("minimal")
    new = dataclasses.replace(made.of("Queue")[0], type="aws:elasticache/cluster:Cluster")
    with pytest.raises(LookupError, match="elasticache/cluster has no price"):
        cost.idle_cost(dataclasses.replace(made, resources=[*made.resources, new]))


def test_minimal_idles_between_20_and_40_dollars_with_database_worker_and_tracking_server() -> None:
    made = cost.running(profile="minimal", **cost.CLOUD)
    assert {r.plain["desiredCount"] for r in made.of("ecs/service:Service")} == {1}
    assert made.of("rds/instance:Instance")
    assert 20 < sum(item.usd for item in cost.idle_cost(made)) < 40


def test_a_dearer_profile_is_dearer() -> None:
    totals = [
        sum(i.usd for i in cost.idle_cost(cost.running(profile=p, **cost.CLOUD))) for p in PROFILES
    ]
    assert totals == sorted(set(totals))


def test_every_database_that_a_profile_picks_has_a_price() -> None:
    for profile in PROFILES.values():
        assert profile.database_class in cost.PRICES["rds_hour"]


def test_a_stack_costs_what_its_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "config_of", lambda stack: {"trainyard:profile": "minimal"})
    minimal = cost.cost_of("dev")
    ha = {"aws:region": "eu-west-1", "trainyard:profile": "ha", "trainyard:durable": "false"}
    monkeypatch.setattr(cost, "config_of", lambda stack: dict(ha))
    assert cost.cost_of("dev")["Database"] > 6 * minimal["Database"]
    table = next(line for line in cost.table().splitlines() if line.startswith("| **idle**"))
    assert table.split("|")[3].strip(" *") == f"{sum(minimal.values()):.2f}"


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [("config: {profile: nope}", "profile = nope"), ("config: [", "YAML"), ("- a", "the file")],
)
def test_a_stack_whose_settings_are_wrong_costs_one_message(
    settings: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainyard.contract.stack_config.PROGRAM", tmp_path)
    monkeypatch.setattr("sys.argv", ["cost", "bad"])
    (tmp_path / "Pulumi.bad.yaml").write_text(settings)
    with pytest.raises(SystemExit, match=rf"(?s)Pulumi\.bad\.yaml can't be used:.*{wrong}"):
        cost.main()


def test_an_hour_of_a_run_is_priced_by_its_size_disk_and_capacity() -> None:
    anchors = {
        "name": "not a size",
        "usual": {"job_variables": {}},
        "huge": {"job_variables": {"cpu": 16384, "memory": 122880, "disk": 200}},
        "spot": {"job_variables": {"launch_type": "FARGATE_SPOT"}},
    }
    said = cost.run_costs({"definitions": anchors})
    assert "`*usual` 0.018 $ on Spot, else 0.058" in said
    assert "`*huge` 0.386 $ on Spot, else 1.201" in said
    assert "`*spot` 0.018 $. " in said
    assert "not a size" not in said
