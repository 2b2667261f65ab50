"""The program as a whole, under Pulumi's mocks: what every stack holds to, and what settings
change.
"""

import json
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import recorder
from infra.iam import UNSCOPED
from infra.outputs import EcsWorkPool, StackOutputs
from infra.readiness import Servers, note
from infra.recorder import Recording, bare
from tests.infra.invariants import RULES, Rule, broken

DIGEST = f"registry.example/trainyard/flow@sha256:{'a' * 64}"
KEY_ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:trainyard-prefect-AbCdEf"
CLOUD: dict[str, Any] = {
    "prefect": "cloud",
    "prefectApiUrl": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
    "prefectApiKeySecretArn": KEY_ARN,
}
OWN_VPC: dict[str, Any] = {
    "vpcId": "vpc-0a",
    "subnetIds": ["subnet-0a", "subnet-0b"],
    "assignPublicIp": True,
}
IMAGES: dict[str, Any] = {"flowImage": DIGEST, "workerImage": DIGEST, "mlflowImage": DIGEST}
READY = note(Servers(mlflow=DIGEST, prefect=DIGEST))
GITHUB: dict[str, Any] = {
    "kind": "account",
    "githubRepository": "acme/rides",
    "githubOwnerId": "11",
    "githubRepositoryId": "22",
    "stateBucket": "acme-state",
    "stateKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/0a-b",
}
STACKS: dict[str, dict[str, Any]] = {
    "account": {"stack": "account", **GITHUB},
    "minimal": {"profile": "minimal"},
    "standard": {"profile": "standard", "noted": READY, **IMAGES},
    "ha": {"profile": "ha", "noted": READY, **IMAGES},
    "cloud": {"profile": "minimal", "noted": READY, **CLOUD, **IMAGES},
    "existing-vpc": {"profile": "standard", **OWN_VPC},
    "isolated": {"profile": "minimal", "interfaceEndpoints": True},
    "bring-all": {"trackingUri": "https://mlflow.example", **CLOUD, **OWN_VPC},
}


@cache
def stack(name: str) -> Recording:
    return recorder.run(**STACKS[name])


@pytest.mark.parametrize("check", RULES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STACKS)
def test_every_stack_keeps_every_rule(name: str, check: Rule) -> None:
    assert list(check(stack(name))) == []


@pytest.mark.parametrize("name", STACKS)
def test_a_preview_knows_less_and_asks_for_the_same(name: str) -> None:
    preview = recorder.run(**STACKS[name], preview=True)
    assert {(r.type, r.name) for r in preview.resources} == {
        (r.type, r.name) for r in stack(name).resources
    }


@given(
    profile=st.sampled_from(["minimal", "standard", "ha"]),
    api=st.sampled_from([{}, CLOUD]),
    network=st.sampled_from(
        [{}, OWN_VPC, {"interfaceEndpoints": True}, {"vpcCidr": "10.9.0.0/20"}]
    ),
    tracking=st.sampled_from([{}, {"trackingUri": "https://mlflow.example"}]),
    images=st.sampled_from([{}, {"flowImage": DIGEST, "workerImage": DIGEST}]),
    durable=st.booleans(),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    sources=st.sampled_from([[], ["s3://lake/taxi/"], ["s3://lake/taxi/", "s3://other-lake/"]]),
    noted=st.sampled_from(["", READY]),
    name=st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True),
)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_valid_settings_make_a_stack_that_keeps_the_rules(
    profile: str,
    api: dict[str, Any],
    network: dict[str, Any],
    tracking: dict[str, Any],
    images: dict[str, Any],
    durable: bool,
    architecture: str,
    sources: list[str],
    noted: str,
    name: str,
) -> None:
    config = {**api, **network, **tracking, **images}
    made = recorder.run(
        name,
        noted=noted,
        profile=profile,
        durable=durable,
        cpuArchitecture=architecture,
        sourcePrefixes=sources,
        **config,
    )
    assert broken(made) == []


# --- order ----------------------------------------------------------------------------------------
def counts(made: Recording) -> dict[str, int]:
    return {r.name.split("-")[2]: r.plain["desiredCount"] for r in made.of("ecs/service:Service")}


def test_a_new_stack_holds_its_services_back_and_says_what_comes_next() -> None:
    assert counts(stack("minimal")) == {"worker": 0, "mlflow": 0, "prefect": 0}
    assert sorted(bare(stack("minimal").exports["held_back"])) == ["mlflow", "prefect", "worker"]


def test_a_stack_with_images_but_without_migrations_names_the_command() -> None:
    made = recorder.run(**IMAGES)
    assert counts(made) == {"worker": 0, "mlflow": 0, "prefect": 0}
    assert bare(made.exports["next"]).startswith("make up STACK=dev")


def test_services_run_once_make_up_has_migrated_and_registered() -> None:
    assert counts(stack("ha")) == {"worker": 2, "mlflow": 1, "prefect": 1}
    assert bare(stack("ha").exports["held_back"]) == []


def test_a_new_image_of_a_server_waits_for_its_migration_and_leaves_the_others_alone() -> None:
    newer = DIGEST.replace("aaaa", "bbbb")
    made = recorder.run(**{**IMAGES, "mlflowImage": newer}, noted=READY)
    assert counts(made) == {"worker": 1, "mlflow": 0, "prefect": 1}


# --- what settings change -------------------------------------------------------------------------
def test_durable_data_is_protected_and_a_rehearsals_is_not() -> None:
    protected = {r.type.rsplit(":", 1)[1] for r in stack("standard").resources if r.protect}
    assert protected == {"Bucket", "Instance", "Key"}
    thrown = recorder.run(profile="standard", durable=False)
    assert not [r for r in thrown.resources if r.protect]
    assert thrown.one("rds/instance:Instance", "postgres").plain["skipFinalSnapshot"]
    assert all(b.plain["forceDestroy"] for b in thrown.of("s3/bucket:Bucket"))


def test_minimal_has_no_nat_and_tasks_have_addresses_but_no_way_in() -> None:
    made = stack("minimal")
    assert not made.of("NatGateway")
    assert len(stack("standard").of("NatGateway")) == 1
    assert len(stack("ha").of("NatGateway")) == 3
    public = [
        r.plain["networkConfiguration"]["assignPublicIp"] for r in made.of("ecs/service:Service")
    ]
    assert all(public)
    assert not any(
        r.plain["networkConfiguration"]["assignPublicIp"]
        for r in stack("standard").of("ecs/service:Service")
    )


def test_a_stack_without_servers_has_no_database() -> None:
    made = stack("bring-all")
    assert not made.of("rds/instance:Instance")
    assert not made.of("PrivateDnsNamespace")
    assert counts(made) == {"worker": 0}
    assert made.exports["trainyard"]["tracking_uri"] == "https://mlflow.example"


def test_a_new_password_reaches_everyone_who_uses_it() -> None:
    before, after = (
        stack("standard"),
        recorder.run(**{**STACKS["standard"], "databasePasswordVersion": 2}),
    )
    changed = {
        r.name
        for r, was in zip(
            sorted(after.of("TaskDefinition"), key=lambda r: r.name),
            sorted(before.of("TaskDefinition"), key=lambda r: r.name),
            strict=True,
        )
        if json.loads(r.plain["containerDefinitions"])
        != json.loads(was.plain["containerDefinitions"])
    }
    users = {"mlflow", "mlflow-migrate", "prefect", "prefect-migrate"}
    assert changed == {f"trainyard-dev-{user}-definition" for user in users}


def test_flows_reach_their_own_prefix_and_their_sources_only() -> None:
    made = recorder.run(sourcePrefixes=["s3://lake/taxi/"])
    policy = made.one("RolePolicy", "flows-task").document("policy")
    resources = {s["Sid"]: s["Resource"] for s in policy["Statement"]}
    bucket = "arn:aws:s3:::trainyard-dev-artifacts-bucket-0123456"
    assert resources["UsePrefix"] == [f"{bucket}/flows/*"]
    assert resources["ReadSource0"] == ["arn:aws:s3:::lake/taxi/*"]
    assert {"s3:PutObject", "s3:DeleteObject"}.isdisjoint(
        next(s["Action"] for s in policy["Statement"] if s["Sid"] == "ReadSource0")
    )


def test_a_flows_own_secrets_reach_its_runs_and_nobody_else() -> None:
    arn = KEY_ARN.replace("prefect", "lake")
    made = recorder.run(profile="minimal", flowSecrets={"LAKE_TOKEN": arn})
    pool = StackOutputs.model_validate(made.exports["trainyard"]).work_pool
    assert isinstance(pool, EcsWorkPool)
    assert pool.secrets["LAKE_TOKEN"] == arn
    assert "PREFECT_API_AUTH_STRING" not in pool.secrets  # the pool has it apart
    readers = [
        where
        for where, statements in made.policies()
        if any(arn in statement.get("Resource", []) for statement in statements)
    ]
    assert readers == ["RolePolicy trainyard-dev-flows-execution"]


def test_the_webhooks_address_reaches_the_deployer_by_ecs_and_is_in_no_output() -> None:
    arn = KEY_ARN.replace("prefect", "notify-webhook")
    made = recorder.run(profile="minimal", notifyWebhookSecretArn=arn)
    given = {
        definition.name: secret["name"]
        for definition, container in made.containers()
        for secret in container["secrets"]
        if secret["valueFrom"] == arn
    }
    assert given == {"trainyard-dev-deployer-definition": "TRAINYARD_NOTIFY_WEBHOOK"}
    assert made.exports["trainyard"]["notify_webhook_secret"] == arn


def test_who_reads_mail_hears_of_runs_once_and_of_services_again_when_they_are_back() -> None:
    alarms = {r.plain["metricName"]: r.plain for r in stack("minimal").of("MetricAlarm")}
    for metric in ("RunsFailed", "RunsCrashed", "Champions"):
        assert alarms[metric]["alarmActions"]
        assert not alarms[metric].get("okActions")
    assert alarms["FailedInvocations"]["okActions"]
    counted = {
        (r.plain["logGroupName"], r.plain["metricTransformation"]["name"])
        for r in stack("minimal").of("LogMetricFilter")
    }
    assert counted == {
        ("/trainyard/dev/flows", "RunsFailed"),
        ("/trainyard/dev/flows", "RunsCrashed"),
        ("/trainyard/dev/worker", "RunsCrashed"),
        ("/trainyard/dev/flows", "Champions"),
    }


def test_every_statement_on_everything_has_a_reason_and_every_reason_a_statement() -> None:
    used = {
        statement["Sid"]
        for name in STACKS
        for where, statements in stack(name).policies()
        for statement in statements
        if "*" in statement.get("Resource", [])
        and statement["Effect"] == "Allow"
        and not where.startswith("Key ")
    }
    assert used == set(UNSCOPED)


def test_github_is_trusted_by_number_and_environment() -> None:
    made = stack("account")
    (statement,) = made.one("Role", "github-deploy").document("assumeRolePolicy")["Statement"]
    exactly = statement["Condition"]["StringEquals"]
    issuer = "token.actions.githubusercontent.com"
    assert exactly[f"{issuer}:sub"] == [
        "repo:acme@11/rides@22:environment:dev",
        "repo:acme@11/rides@22:environment:prod",
    ]
    assert exactly[f"{issuer}:repository_id"] == "22"
    assert exactly[f"{issuer}:aud"] == "sts.amazonaws.com"
    assert list(statement["Condition"]) == ["StringEquals"]


def test_who_previews_changes_nothing() -> None:
    made = stack("account")
    reads = ("Get", "List", "Describe", "View", "Decrypt")
    for policy in made.of("iam/policy:Policy"):
        if "github-preview" in policy.name:
            for statement in policy.document("policy")["Statement"]:
                for action in statement["Action"]:
                    assert action.split(":")[1].startswith(reads), action


def test_policies_fit_into_iam() -> None:
    for name in STACKS:
        for policy in stack(name).of("iam/policy:Policy"):
            document = json.dumps(policy.document("policy"), separators=(",", ":"))
            assert len(document) <= 6144, policy.name


def test_every_role_of_an_environment_has_the_accounts_boundary() -> None:
    (boundary,) = [
        p.plain["name"] for p in stack("account").of("iam/policy:Policy") if "boundary" in p.name
    ]
    for name in STACKS.keys() - {"account"}:
        bounds = {role.plain["permissionsBoundary"] for role in stack(name).of("Role")}
        assert bounds == {f"arn:aws:iam::123456789012:policy/{boundary}"}, name


@pytest.mark.parametrize("name", STACKS.keys() - {"account"})
def test_the_boundary_reaches_as_far_as_every_roles_own_policy(name: str) -> None:
    sources = ["s3://lake/taxi/"]
    account = recorder.run(**STACKS["account"], sourcePrefixes=sources)
    boundary = account.one("iam/policy:Policy", "boundary-policy").document("policy")["Statement"]
    made = recorder.run(**{**STACKS[name], "sourcePrefixes": sources})
    outside = [
        (policy.name, action, resource)
        for policy in made.of("RolePolicy")
        for statement in policy.document("policy")["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
        if not any(
            any(fnmatchcase(action, a) for a in most["Action"])
            and any(fnmatchcase(resource, r) for r in most["Resource"])
            for most in boundary
        )
    ]
    assert outside == []


def test_a_boundary_of_ones_own_is_on_every_role_and_replaces_the_accounts() -> None:
    boundary = "arn:aws:iam::123456789012:policy/bound"
    configs: list[dict[str, Any]] = [{"profile": "standard"}, {"stack": "account", **GITHUB}]
    for config in configs:
        made = recorder.run(**config, permissionsBoundary=boundary)
        roles = made.of("Role")
        assert roles
        assert not [p for p in made.of("iam/policy:Policy") if "boundary" in p.name]
        assert {role.plain["permissionsBoundary"] for role in roles} == {boundary}


def test_an_account_without_the_boundary_is_told_what_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = recorder.Cloud.call

    def call(self: recorder.Cloud, args: Any) -> Any:
        if args.token.endswith("getPolicy"):
            return {}, [("arn", "NoSuchEntity")]
        return answer(self, args)

    monkeypatch.setattr(recorder.Cloud, "call", call)
    with pytest.raises(Exception, match=r"policy/trainyard-boundary\. `make bootstrap` .*NoSuch"):
        recorder.run()


def test_wrong_settings_stop_the_program_with_all_that_is_wrong() -> None:
    with pytest.raises(Exception, match=r"(?s)profile = huge.*vpcId = net"):
        recorder.run(profile="huge", vpcId="net")


def test_another_accounts_credentials_are_refused() -> None:
    made = recorder.run(accountId="123456789012")
    provider = made.one("providers:aws", "aws").plain
    assert json.loads(provider["allowedAccountIds"]) == ["123456789012"]


def test_every_resource_is_tagged_with_its_stack() -> None:
    provider = stack("minimal").one("providers:aws", "aws").plain
    tags = json.loads(provider["defaultTags"])["tags"]
    assert tags["trainyard-stack"] == "dev"
