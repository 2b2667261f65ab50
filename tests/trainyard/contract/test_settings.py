"""Settings: what a stack's file may say, and what it is told when it can't be used."""

import ast
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from trainyard.contract import settings as contract
from trainyard.contract import stack_config
from trainyard.contract.settings import Settings
from trainyard.contract.stack_config import SettingsError, config_of, declared

KEY_ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:trainyard-prefect-AbCdEf"
URL = "https://api.prefect.cloud/api/accounts/a/workspaces/w"


def config(**given: Any) -> dict[str, Any]:
    return {"aws:region": "eu-central-1"} | {f"trainyard:{k}": v for k, v in given.items()}


def parse(stack: str, config: Mapping[str, Any]) -> Settings:
    return stack_config.parse(stack, config, Settings)


def problems(stack: str = "dev", /, **given: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        parse(stack, config(**given))
    return {p.key.removeprefix("trainyard:"): p.allowed for p in caught.value.problems}


def test_a_stack_that_says_nothing_is_minimal_durable_and_hosts_its_own_servers() -> None:
    settings = parse("dev", config())
    assert (settings.profile, settings.durable, settings.prefect) == (
        "minimal",
        True,
        "self-hosted",
    )
    assert settings.work_pool_name == "trainyard-dev"
    assert settings.sizes.nat_gateways == 0


def test_texts_become_what_they_mean() -> None:
    settings = parse(
        "dev",
        config(durable="false", databaseStorageGb="50", alarmEmails='["a@b.c"]', tags='{"k": "v"}'),
    )
    assert settings.durable is False
    assert settings.database_storage_gb == 50
    assert settings.alarm_emails == ("a@b.c",)
    assert settings.tags == {"k": "v"}


@pytest.mark.parametrize("name", ["rds:trainyard-dev-database-2026-11-22", "mine", "trainyard-A"])
def test_a_snapshot_that_could_not_be_restored_is_refused(name: str) -> None:
    assert "databaseSnapshot" in problems(databaseSnapshot=name)
    assert parse("dev", config(databaseSnapshot="trainyard-dev-restore")).database_snapshot


def test_settings_cant_be_changed() -> None:
    settings = parse("dev", config())
    with pytest.raises(ValidationError):
        settings.profile = "ha"


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems(
        profile="large", databaseStorageGb="much", vpcID="vpc-1", prefect="cloud", durable="maybe"
    )
    assert set(found) == {
        "profile",
        "databaseStorageGb",
        "vpcID",
        "durable",
        "prefectApiUrl",
        "prefectApiKeySecretArn",
    }
    assert found["profile"] == "minimal, standard or ha"
    assert "vpcId?" in found["vpcID"]


def test_the_message_names_file_key_value_and_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as caught:
        parse("prod", config(profile="large"))
    assert str(caught.value).splitlines() == [
        "Pulumi.prod.yaml can't be used:",
        "  trainyard:profile = large: should be minimal, standard or ha",
    ]
    with pytest.raises(SettingsError) as caught:
        stack_config.parse("dev", {"trainyard:durable": "", "aws:profile": "me"}, Settings)
    assert str(caught.value).splitlines() == [
        "Pulumi.dev.yaml can't be used:",
        "  aws:profile = me: should be left to the environment (AWS_PROFILE, ...)",
        "  aws:region = (not set): should be a region, such as eu-central-1",
        '  trainyard:durable = "": should be true or false',
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accountId", "12345"),
        ("alarmEmails", '["nobody"]'),
        ("alarmEmails", "not a list"),
        ("databasePasswordVersion", "0"),
        ("databaseStorageGb", "5"),
        ("durable", "perhaps"),
        ("flowImage", "registry/flow:latest"),
        ("flowSecrets", '{"TOKEN": "t0k3n"}'),
        ("flowSecrets", f'{{"token": "{KEY_ARN}"}}'),
        ("notifyWebhookSecretArn", "https://hooks.example.com/x"),
        ("trainingData", "somewhere"),
        ("kind", "other"),
        ("logDays", "31"),
        ("permissionsBoundary", "Bound"),
        ("prefectApiUrl", "app.prefect.cloud"),
        ("sourcePrefixes", '["s3://lake/*"]'),
        ("sourcePrefixes", '["s3://lake"]'),
        ("subnetIds", '["10.0.0.0/24"]'),
        ("tags", '{"k": ["v"]}'),
        ("vpcCidr", "10.0.0.0/8"),
        ("vpcCidr", "10.0.0.1/16"),
        ("vpcCidr", "11.0.0.0/16"),
        ("workPool", "my pool"),
    ],
)
def test_a_wrong_value_is_refused_at_its_key(key: str, value: str) -> None:
    assert key in problems(**{key: value})


@pytest.mark.parametrize("stack", ["", "Dev", "1dev", "dev-", "a", "a-very-long-name", "dev_eu"])
def test_a_stacks_name_must_fit_into_the_names_built_from_it(stack: str) -> None:
    assert "the stack's name" in problems(stack)


def test_a_region_is_needed() -> None:
    with pytest.raises(SettingsError, match=r"aws:region = \(not set\): should be "):
        parse("dev", {})


def test_other_settings_of_the_aws_provider_would_be_ignored_so_they_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="aws:profile = work: should be left to the environment"
    ):
        parse("dev", {"aws:region": "eu-central-1", "aws:profile": "work"})


CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/0a-b"
CONTRADICTORY: list[tuple[str, dict[str, Any]]] = [
    ("prefectApiUrl", {"prefect": "cloud", "prefectApiKeySecretArn": KEY_ARN}),
    ("prefectApiKeySecretArn", {"prefect": "cloud", "prefectApiUrl": URL}),
    ("prefectApiUrl", {"prefectApiUrl": URL}),
    ("serve", {"serve": ["wine", "wine"]}),
    ("serve", {"serve": ["wine", "mlflow"]}),
    ("serve", {"serve": ["a" * 27]}),
    ("serveMaxTasks", {"profile": "ha", "serveMaxTasks": 1}),
    ("serveCertificateArn", {"serveDomain": "models.example.com"}),
    (
        "serveCertificateArn",
        {
            "serveDomain": "models.example.com",
            "serveCertificateArn": CERTIFICATE.replace("eu-central-1", "us-east-1"),
        },
    ),
    ("prefectApiKeySecretArn", {"prefectApiKeySecretArn": KEY_ARN}),
    ("subnetIds", {"vpcId": "vpc-1", "subnetIds": ["subnet-1"]}),
    (
        "databaseSubnetIds",
        {
            "vpcId": "vpc-1",
            "subnetIds": ["subnet-1", "subnet-2"],
            "databaseSubnetIds": ["subnet-3"],
        },
    ),
    ("subnetIds", {"subnetIds": ["subnet-1", "subnet-2"]}),
    ("databaseSubnetIds", {"databaseSubnetIds": ["subnet-1", "subnet-2"]}),
    ("assignPublicIp", {"assignPublicIp": True}),
    (
        "interfaceEndpoints",
        {"vpcId": "vpc-1", "subnetIds": ["subnet-1", "subnet-2"], "interfaceEndpoints": True},
    ),
    (
        "mlflowImage",
        {"mlflowImage": f"sha256:{'a' * 64}", "trackingUri": "https://mlflow.example"},
    ),
    ("githubOwnerId", {"githubRepository": "a/b", "githubRepositoryId": "1", "stateBucket": "bbb"}),
    ("githubRepositoryId", {"githubRepository": "a/b", "githubOwnerId": "1", "stateBucket": "bbb"}),
    ("stateBucket", {"githubRepository": "a/b", "githubOwnerId": "1", "githubRepositoryId": "1"}),
    (
        "accountId",
        {
            "accountId": "123456789012",
            "permissionsBoundary": "arn:aws:iam::999999999999:policy/bound",
        },
    ),
    (
        "prefectApiKeySecretArn",
        {
            "prefect": "cloud",
            "prefectApiUrl": URL,
            "prefectApiKeySecretArn": KEY_ARN.replace("trainyard-", ""),
        },
    ),
    ("flowSecrets", {"flowSecrets": {"TOKEN": KEY_ARN.replace("trainyard-", "")}}),
    ("flowsDatabase", {"flowsDatabase": True, "flowSecrets": {"PGPASSWORD": KEY_ARN}}),
    ("notifyWebhookSecretArn", {"notifyWebhookSecretArn": KEY_ARN.replace("trainyard-", "")}),
]


@pytest.mark.parametrize(("key", "given"), CONTRADICTORY)
def test_settings_that_contradict_each_other_are_refused(key: str, given: dict[str, Any]) -> None:
    assert list(problems(**given)) == [key]


def test_every_contradiction_has_its_test() -> None:
    said = {problems(**given)[key] for key, given in CONTRADICTORY}
    source = ast.parse(Path(contract.__file__).read_text())
    raised = [
        node.exc.args[0]
        for node in ast.walk(source)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and ast.unparse(node.exc.func) == "ContradictionError"
    ]
    missing = []
    for text in raised:
        constant = text.value if isinstance(text, ast.Constant) else text.values[0].value
        if not any(each.startswith(constant) for each in said):
            missing.append(constant)
    assert raised
    assert not missing


@given(st.dictionaries(st.sampled_from([to_camel(n) for n in Settings.model_fields]), st.text()))
def test_no_text_makes_it_fail_in_another_way(given: dict[str, str]) -> None:
    given.pop("stack", None)
    with suppress(SettingsError):
        parse("dev", config(**given))


def test_declared_defaults_are_a_valid_stack() -> None:
    assert parse("dev", config(**{k: v["default"] for k, v in declared(Settings).items()}))


def test_settings_of_ones_own_are_checked_and_declared_like_the_others() -> None:
    class Ours(Settings):
        lake_bucket: str = contract.setting("Where raw data lands.", "a bucket's name")

    given = config(lakeBucket="rides", profile="ha")
    settings = stack_config.parse("dev", given, Ours)
    assert (settings.lake_bucket, settings.profile) == ("rides", "ha")
    with pytest.raises(SettingsError, match=r"lakeBuket = rides: .* did you mean lakeBucket\?"):
        stack_config.parse("dev", config(lakeBuket="rides"), Ours)
    assert declared(Ours)["lakeBucket"] == {
        "type": "string",
        "description": "Where raw data lands. Allowed: a bucket's name.",
        "default": "",
    }
    assert declared(Ours).keys() - declared(Settings).keys() == {"lakeBucket"}


def test_a_stack_without_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_config, "PROGRAM", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no stack dev: .*Pulumi\.dev\.yaml"):
        config_of("dev")
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {'trainyard:profile': ha}\n")
    assert config_of("dev") == {"trainyard:profile": "ha"}


def test_all_that_is_wrong_with_served_models_is_said_at_once() -> None:
    found = problems(
        serve=["Taxi_Trips"],
        serveFromCidrs=["10.0.0.1/8"],
        serveFromSecurityGroups=["default"],
        serveCertificateArn=CERTIFICATE,
        profile="ha",
        serveMaxTasks=1,
    )
    assert found["serveMaxTasks"].startswith("0, or at least 2")
    assert found["serveCertificateArn"] == "given together with serveDomain"
    assert set(found) == {
        *("serve", "serveFromCidrs", "serveFromSecurityGroups"),
        *("serveMaxTasks", "serveCertificateArn"),
    }


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "52.0.0.0/8", "10.0.0.0/33", "models"])
def test_only_private_networks_reach_served_models(cidr: str) -> None:
    assert "serveFromCidrs" in problems(serveFromCidrs=["10.0.0.0/8", cidr])
    assert parse("dev", config(serveFromCidrs=["10.0.0.0/8", "100.64.0.0/10"])).serve_from_cidrs


def test_served_models_that_can_be_are_accepted() -> None:
    settings = parse(
        "dev",
        config(
            serve=["a" * 26],
            serveMaxTasks=1,
            serveDomain="models.example.com",
            serveCertificateArn=CERTIFICATE,
        ),
    )
    assert settings.serve_domain
    assert settings.serve_max_tasks == 1
