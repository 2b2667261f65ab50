"""The program as a whole, under Pulumi's mocks: what every stack holds to, and what settings
change.
"""

import json
from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.components.unscoped import UNSCOPED
from infra.estimate import recorder
from infra.estimate.recorder import Recording, bare
from tests.infra.example_stacks import (
    CLOUD,
    DIGEST,
    GITHUB,
    IMAGES,
    KEY_ARN,
    OWN_VPC,
    READY,
    STACKS,
    recorded,
    stack,
)
from tests.infra.invariants import broken, faults
from trainyard.contract.outputs import EcsWorkPool, StackOutputs
from trainyard.contract.release import Images, Release, ReleaseRecord


@pytest.mark.parametrize("name", STACKS)
def test_every_stack_keeps_every_rule(name: str) -> None:
    assert broken(stack(name)) == []


@pytest.mark.parametrize("name", STACKS)
def test_a_preview_knows_less_and_asks_for_the_same(name: str) -> None:
    preview = recorded(**STACKS[name], preview=True)
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
    database=st.booleans(),
    noted=st.sampled_from(["", READY]),
    name=st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True),
)
@settings(
    max_examples=12,
    derandomize=True,
    phases=[Phase.generate],  # to look for a smaller example takes minutes
    suppress_health_check=list(HealthCheck),
)
def test_any_valid_settings_make_a_stack_that_keeps_the_rules(
    profile: str,
    api: dict[str, Any],
    network: dict[str, Any],
    tracking: dict[str, Any],
    images: dict[str, Any],
    durable: bool,
    architecture: str,
    sources: list[str],
    database: bool,
    noted: str,
    name: str,
) -> None:
    config = {**api, **network, **tracking, **images}
    made = recorded(
        name,
        noted=noted,
        profile=profile,
        durable=durable,
        cpuArchitecture=architecture,
        sourcePrefixes=sources,
        flowsDatabase=database,
        **config,
    )
    assert broken(made) + faults(made) == []


# --- order ----------------------------------------------------------------------------------------
def counts(made: Recording) -> dict[str, int]:
    return {r.name.split("-")[2]: r.plain["desiredCount"] for r in made.of("ecs/service:Service")}


def test_a_new_stack_holds_its_services_back_and_says_what_comes_next() -> None:
    made = stack("isolated")
    assert counts(made) == {"worker": 0, "mlflow": 0, "prefect": 0}
    assert sorted(bare(made.exports["held_back"])) == ["mlflow", "prefect", "worker"]


def test_a_stack_with_images_but_without_migrations_names_the_command() -> None:
    made = recorded(**IMAGES)
    assert counts(made) == {"worker": 0, "mlflow": 0, "prefect": 0}
    assert bare(made.exports["next"]).startswith("make up STACK=dev")


def test_services_run_once_make_up_has_migrated_and_registered() -> None:
    assert counts(stack("ha")) == {"worker": 2, "mlflow": 1, "prefect": 1, "serve": 2}
    assert bare(stack("ha").exports["held_back"]) == []


def test_a_new_image_of_a_server_waits_for_its_migration_and_leaves_the_others_alone() -> None:
    newer = DIGEST.replace("aaaa", "bbbb")
    made = recorded(**{**IMAGES, "mlflowImage": newer}, noted=READY)
    assert counts(made) == {"worker": 1, "mlflow": 0, "prefect": 1}


def images_of(made: Recording) -> set[str]:
    return {container["image"] for _, container in made.containers()}


def test_a_released_stack_keeps_its_images_whoever_runs_the_program() -> None:
    images = Images(flow=DIGEST, worker=DIGEST, mlflow=DIGEST)
    release = Release(commit="c" * 40, tree="d" * 40, images=images)
    told = ReleaseRecord(release=release, completed=False).model_dump_json()
    made = recorded(profile="ha", noted=READY, released=told)
    assert images_of(made) == {DIGEST}
    assert counts(made) == {"worker": 2, "mlflow": 1, "prefect": 1}
    assert bare(made.exports["flow_image"]) == DIGEST
    newer = DIGEST.replace("aaaa", "bbbb")
    named = recorded(profile="ha", noted=READY, released=told, workerImage=newer)
    assert images_of(named) == {DIGEST, newer}


# --- what settings change -------------------------------------------------------------------------
def test_durable_data_is_protected_and_a_rehearsals_is_not() -> None:
    protected = {r.type.rsplit(":", 1)[1] for r in stack("standard").resources if r.protect}
    assert protected == {"Bucket", "Instance", "Key"}
    thrown = recorded(profile="standard", durable=False)
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
        recorded(**{**STACKS["standard"], "databasePasswordVersion": 2}),
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


def test_a_database_from_a_snapshot_is_migrated_before_its_servers_run() -> None:
    restored = recorded(**{**STACKS["standard"], "databaseSnapshot": "trainyard-dev-restore"})
    database = restored.one("rds/instance:Instance", "postgres")
    assert database.plain["snapshotIdentifier"] == "trainyard-dev-restore"
    assert database.plain["identifier"] == "trainyard-dev-database"
    # a model's server goes on, with what it has loaded
    assert counts(restored) == {"worker": 0, "mlflow": 0, "prefect": 0, "serve": 2}


def test_new_server_passwords_reach_flows_and_wait_for_the_migration() -> None:
    made = recorded(**{**STACKS["standard"], "serverPasswordVersion": 2})
    stored = {r.name for r in made.of("SecretVersion")}
    assert {"trainyard-dev-mlflow-admin-v2", "trainyard-dev-prefect-auth-v2"} <= stored
    assert counts(made) == {"worker": 0, "mlflow": 0, "prefect": 0, "serve": 2}
    migration = {r.name: c for r, c in made.containers()}["trainyard-dev-mlflow-migrate-definition"]
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in {each["name"] for each in migration["secrets"]}


def test_flows_reach_their_own_prefix_and_their_sources_only() -> None:
    policy = stack("standard").one("RolePolicy", "flows-task").document("policy")
    resources = {s["Sid"]: s["Resource"] for s in policy["Statement"]}
    bucket = "arn:aws:s3:::trainyard-dev-artifacts-bucket-0123456"
    assert resources["UsePrefix"] == [f"{bucket}/flows/*"]
    assert resources["ReadSource0"] == ["arn:aws:s3:::lake/taxi/*"]
    assert {"s3:PutObject", "s3:DeleteObject"}.isdisjoint(
        next(s["Action"] for s in policy["Statement"] if s["Sid"] == "ReadSource0")
    )


LAKE_TOKEN = KEY_ARN.replace("prefect", "lake")
WEBHOOK = KEY_ARN.replace("prefect", "notify-webhook")
OWN_SECRETS = {"flowSecrets": {"LAKE_TOKEN": LAKE_TOKEN}, "notifyWebhookSecretArn": WEBHOOK}


def test_a_flows_own_secrets_reach_its_runs_and_nobody_else() -> None:
    made, arn = recorded(**OWN_SECRETS), LAKE_TOKEN
    pool = StackOutputs.model_validate(made.exports["trainyard"]).work_pool
    assert isinstance(pool, EcsWorkPool)
    assert pool.secrets["LAKE_TOKEN"] == arn
    assert "PREFECT_API_AUTH_STRING" not in pool.secrets  # the pool has it apart
    readers = [
        where
        for where, statements in made.policies()
        if any(arn in statement.get("Resource", []) for statement in statements)
    ]
    assert readers == [f"RolePolicy trainyard-dev-{part}-execution" for part in ("flows", "models")]


@pytest.mark.parametrize("name", ["standard", "bring-all"])
def test_a_database_of_the_flows_own_is_reached_by_them_as_their_own_user(name: str) -> None:
    made = recorded(**STACKS[name], flowsDatabase=True)
    pool = StackOutputs.model_validate(made.exports["trainyard"]).work_pool
    assert isinstance(pool, EcsWorkPool)
    assert pool.environment["PGSSLMODE"] == "require"
    container = {r.name: container for r, container in made.containers()}[
        "trainyard-dev-flows-database-migrate-definition"
    ]
    told = {each["name"]: each["value"] for each in container["environment"]}
    url = f"postgresql://flows@{told['PGHOST']}/flows"
    assert pool.environment["TRAINYARD_FLOWS_DATABASE"] == url
    secrets = {each["name"]: each["valueFrom"] for each in container["secrets"]}
    assert secrets["FLOWS_PASSWORD"] == pool.secrets["PGPASSWORD"] != secrets["PGPASSWORD"]
    opened = {
        rule.name
        for rule in made.of("SecurityGroupIngressRule")
        if rule.plain["fromPort"] == 5432 and "flows-database" in rule.name
    }
    parts = ("flows", "models")
    assert opened == {f"trainyard-dev-{part}-flows-database-in" for part in parts}
    assert "flows" in bare(made.exports["held_back"])
    assert "migrate-flows" in bare(made.exports["tasks"])["definitions"]


def test_a_stack_without_what_make_up_has_noted_asks_it_to_forget() -> None:
    noted = json.dumps(json.loads(READY) | {"flows": "a database"})
    assert bare(recorded(**IMAGES, noted=noted).exports["held_back"]) == ["flows"]


def test_the_webhooks_address_reaches_the_deployer_by_ecs_and_is_in_no_output() -> None:
    made, arn = recorded(**OWN_SECRETS), WEBHOOK
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
    for metric in ("RunsFailed", "RunsCrashed", "Champions", "Drift"):
        assert alarms[metric]["alarmActions"]
        assert not alarms[metric].get("okActions")
    assert alarms["FailedInvocations"]["okActions"]
    counted = Counter(
        (r.plain["logGroupName"], r.plain["metricTransformation"]["name"])
        for r in stack("minimal").of("LogMetricFilter")
    )
    assert counted == {
        ("/trainyard/dev/flows", "RunsFailed"): 3,
        ("/trainyard/dev/flows", "RunsCrashed"): 2,
        ("/trainyard/dev/worker", "RunsCrashed"): 2,
        ("/trainyard/dev/flows", "Champions"): 1,
        ("/trainyard/dev/flows", "Drift"): 1,
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


@pytest.mark.parametrize(
    ("role", "environments"), [("github-deploy", ["dev", "prod"]), ("github-preview", ["preview"])]
)
def test_github_is_trusted_by_number_and_environment(role: str, environments: list[str]) -> None:
    (statement,) = stack("account").one("Role", role).document("assumeRolePolicy")["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert list(statement["Principal"]) == ["Federated"]
    subjects = [f"repo:acme@11/rides@22:environment:{each}" for each in environments]
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": subjects,
            f"{issuer}:repository_id": "22",
        }
    }


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


@pytest.mark.parametrize("name", [name for name in STACKS if name != "account"])
def test_the_boundary_reaches_as_far_as_every_roles_own_policy(name: str) -> None:
    account, made = stack("account"), stack(name)
    boundary = account.one("iam/policy:Policy", "boundary-policy").document("policy")["Statement"]
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
        made = recorded(**config, permissionsBoundary=boundary)
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
    provider = stack("bring-all").one("providers:aws", "aws").plain
    assert json.loads(provider["allowedAccountIds"]) == ["123456789012"]


def test_every_resource_is_tagged_with_its_stack() -> None:
    provider = stack("minimal").one("providers:aws", "aws").plain
    tags = json.loads(provider["defaultTags"])["tags"]
    assert tags["trainyard-stack"] == "dev"
