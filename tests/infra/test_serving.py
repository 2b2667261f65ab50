"""Served models on AWS: when their servers are made, who reaches them, what they may do."""

import json
from typing import Any

import pytest

from infra.estimate.recorder import Recording, Resource, bare
from tests.infra.example_stacks import CLOUD, DIGEST, IMAGES, READY, SERVED, STACKS, recorded, stack
from tests.infra.invariants import broken, faults

NAME = "trainyard-dev-serve-taxi-trip-duration"
HOST = "taxi-trip-duration.dev.trainyard.internal"


def service(made: Recording) -> Resource:
    return made.one("ecs/service:Service", f"{NAME}-service")


def container(made: Recording) -> dict[str, Any]:
    return {r.name: each for r, each in made.containers()}[f"{NAME}-definition"]


def reached(made: Recording, group: str) -> dict[int, set[str]]:
    """Who may come in, by port."""
    found: dict[int, set[str]] = {}
    for rule in made.of("SecurityGroupIngressRule"):
        have = rule.plain
        if have["securityGroupId"] == f"{group}-access-id":
            source = have.get("cidrIpv4") or have["referencedSecurityGroupId"]
            found.setdefault(int(have["fromPort"]), set()).add(source)
    return found


def test_no_stack_serves_a_model_unless_it_is_asked_to() -> None:
    made = stack("minimal")
    assert not made.of("ModelServer") + made.of("LoadBalancer")
    assert "served" not in made.exports


@pytest.mark.parametrize(("profile", "tasks"), [("minimal", 1), ("standard", 2), ("ha", 2)])
def test_a_served_model_has_two_tasks_where_nothing_is_on_spot(profile: str, tasks: int) -> None:
    made = recorded(profile=profile, noted=READY, **IMAGES, **SERVED)
    assert service(made).plain["desiredCount"] == tasks
    assert broken(made) + faults(made) == []
    (alarm,) = [r.plain for r in made.of("MetricAlarm") if r.name.endswith("duration-down")]
    assert alarm["threshold"] == (tasks if profile != "minimal" else 0)


def test_a_server_is_made_once_mlflow_was_there_and_goes_on_while_it_is_migrated() -> None:
    early = recorded(**IMAGES, **SERVED)
    assert not early.of("ModelServer")
    assert "serve-taxi-trip-duration" in bare(early.exports["held_back"])
    newer = DIGEST.replace("aaaa", "bbbb")
    during = recorded(**{**IMAGES, "mlflowImage": newer}, **SERVED, noted=READY)
    assert service(during).plain["desiredCount"] == 1
    assert service(during).plain["waitForSteadyState"] is False  # the new MLflow comes later
    assert bare(during.exports["held_back"]) == ["mlflow"]
    after = recorded(**IMAGES, **SERVED, noted=READY)
    assert service(after).plain["waitForSteadyState"] is True


def test_a_server_of_another_mlflow_has_the_flows_own_login_and_no_other_secret() -> None:
    arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:trainyard-{}-AbCdEf"
    given = {"MLFLOW_TRACKING_TOKEN": arn.format("mlflow"), "LAKE_TOKEN": arn.format("lake")}
    elsewhere = {**CLOUD, "trackingUri": "https://mlflow.example", "flowSecrets": given}
    made = recorded(flowImage=DIGEST, **elsewhere, **SERVED)
    assert [each["name"] for each in container(made)["secrets"]] == ["MLFLOW_TRACKING_TOKEN"]
    assert made.of("PrivateDnsNamespace")


def test_only_those_named_reach_a_model_and_it_answers_by_its_name_in_the_vpc() -> None:
    made = stack("standard")
    assert reached(made, NAME) == {8000: {"10.8.0.0/16"}}
    named = made.one("servicediscovery/service:Service", f"{NAME}-name").plain
    assert f"{named['name']}.dev.trainyard.internal" == HOST
    assert made.exports["served"] == {"taxi-trip-duration": f"http://{HOST}:8000"}
    command = container(made)["command"]
    assert command[command.index("--hosts") :] == ["--hosts", HOST]
    assert "127.0.0.1:8000/health" in json.dumps(container(made)["healthCheck"])
    nobody = recorded(**IMAGES, serve=["taxi-trip-duration"], noted=READY)
    assert reached(nobody, NAME) == {}


def test_a_certificate_puts_an_internal_load_balancer_with_tls_before_all_models() -> None:
    given = STACKS["ha"] | {"serve": ["taxi-trip-duration", "fraud-risk"]}
    made = recorded(**given)
    (balancer,), (listener,) = (
        made.of("lb/loadBalancer:LoadBalancer"),
        made.of("lb/listener:Listener"),
    )
    assert balancer.plain["internal"] is True
    assert reached(made, "trainyard-dev-serve") == {443: {"10.8.0.0/16", "sg-0a"}}
    assert (listener.plain["port"], listener.plain["protocol"]) == (443, "HTTPS")
    assert "TLS13-1-2" in listener.plain["sslPolicy"]
    # the tasks are reached by it alone
    assert reached(made, NAME) == {8000: {"trainyard-dev-serve-access-id"}}
    hosts = {
        rule.plain["conditions"][0]["hostHeader"]["values"][0]: rule.plain["actions"][0]
        for rule in made.of("ListenerRule")
    }
    assert set(hosts) == {"taxi-trip-duration.models.example.com", "fraud-risk.models.example.com"}
    assert len({action["targetGroupArn"] for action in hosts.values()}) == 2
    assert made.exports["served"]["fraud-risk"] == "https://fraud-risk.models.example.com"
    assert "taxi-trip-duration.models.example.com" in container(made)["command"]
    # a champion that is missing isn't a task to be killed
    assert {g.plain["healthCheck"]["path"] for g in made.of("TargetGroup")} == {"/health"}
    assert service(made).plain["healthCheckGracePeriodSeconds"] == 240


def test_names_of_load_balancers_fit_the_longest_stack() -> None:
    made = recorded("production-1", **{**STACKS["ha"], "serve": ["fraud-risk"]})
    named = made.of("lb/loadBalancer:LoadBalancer") + made.of("TargetGroup")
    assert all(len(each.plain["name"]) <= 32 for each in named)
    assert broken(made) + faults(made) == []


def test_autoscaling_keeps_the_count_that_it_has_chosen() -> None:
    made = stack("ha")
    (target,), (policy,) = made.of("Target"), made.of("appautoscaling/policy:Policy")
    assert (target.plain["minCapacity"], target.plain["maxCapacity"]) == (2, 4)
    assert target.plain["resourceId"] == f"service/trainyard-dev/{NAME}-service-0123456"
    assert policy.plain["targetTrackingScalingPolicyConfiguration"]["targetValue"] == 60
    assert service(made).ignored == ("desiredCount",)
    assert service(stack("standard")).ignored == ()


def test_a_server_writes_its_own_request_log_and_reads_nothing() -> None:
    statements = stack("standard").one("RolePolicy", f"{NAME}-task").document("policy")["Statement"]
    bucket = "arn:aws:s3:::trainyard-dev-artifacts-bucket-0123456"
    on = {action: s["Resource"] for s in statements for action in s["Action"]}
    own = f"{bucket}/flows/served/taxi-trip-duration/*"
    assert on.pop("s3:PutObject") == on.pop("s3:AbortMultipartUpload") == [own]
    assert not [action for action in on if not action.startswith("kms:")]
    secrets = stack("standard").one("RolePolicy", f"{NAME}-execution").document("policy")
    (read,) = [s for s in secrets["Statement"] if s["Sid"] == "ReadSecrets"]
    assert [arn.split(":")[-1] for arn in read["Resource"]] == [
        "trainyard-dev-mlflow-admin-secret-0123456"
    ]


def test_failed_requests_and_refused_champions_of_all_models_are_heard() -> None:
    made = recorded(**{**STACKS["standard"], "serve": ["taxi-trip-duration", "fraud-risk"]})
    counted = {
        (r.plain["logGroupName"], r.plain["metricTransformation"]["name"])
        for r in made.of("LogMetricFilter")
        if "/serve-" in r.plain["logGroupName"]
    }
    logs = ("/trainyard/dev/serve-taxi-trip-duration", "/trainyard/dev/serve-fraud-risk")
    metrics = ("RequestsFailed", "ChampionsRefused")
    assert counted == {(log, metric) for log in logs for metric in metrics}
    assert set(metrics) <= {r.plain["metricName"] for r in made.of("MetricAlarm")}


@pytest.mark.parametrize(("percent", "share"), [(100, "1"), (25, "0.25"), (0, "0")])
def test_a_server_is_told_what_share_of_requests_it_logs(percent: int, share: str) -> None:
    made = recorded(**IMAGES, **SERVED, noted=READY, serveLogPercent=percent)
    told = {"name": "TRAINYARD_SERVE_LOG", "value": share}
    assert told in container(made)["environment"]
