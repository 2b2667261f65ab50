"""`make bootstrap`: Pulumi's state and Prefect's key, made once and found again."""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.trainyard.aws.fake_gh import FakeGitHub
from trainyard.__main__ import main
from trainyard.aws import bootstrap
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.tools.errors import StackError


@pytest.fixture
def session(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    return boto3.Session("test", "test", region_name="eu-central-1")


@pytest.mark.server
def test_the_state_is_made_once_private_versioned_and_encrypted(session: Any) -> None:
    state = bootstrap.make_state(session)
    assert bootstrap.make_state(session) == state
    s3 = session.client("s3")
    assert s3.get_bucket_versioning(Bucket=state.bucket)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=state.bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=state.bucket)["Policy"]
    assert session.client("kms").get_key_rotation_status(KeyId=state.key_arn)["KeyRotationEnabled"]
    assert state.backend == f"s3://{state.bucket}?region=eu-central-1"


@pytest.mark.pulumi
def test_a_stack_is_made_in_the_state_that_its_file_names(
    ministack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("pulumi"):
        pytest.skip("there is no pulumi on PATH: https://www.pulumi.com/docs/install/")
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(bootstrap, "Pulumi", partial(Pulumi, folder=tmp_path))
    (tmp_path / "Pulumi.yaml").write_text("{name: trainyard, runtime: python}\n")
    state = bootstrap.make_state(boto3.Session("test", "test", region_name="eu-central-1"))
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text("# mine\nconfig: {'trainyard:profile': standard}\n")
    bootstrap.prepare_stack("dev", state, {})
    made = file.read_text()
    assert "# mine" in made
    assert yaml.safe_load(made)["secretsprovider"] == state.secrets_provider
    assert yaml.safe_load(made)["config"] == {
        "aws:region": "eu-central-1",
        "trainyard:accountId": state.account,
        "trainyard:backend": state.backend,
        "trainyard:profile": "standard",
    }
    bootstrap.prepare_stack("dev", state, {})
    assert file.read_text() == made
    assert Pulumi("dev", tmp_path).outputs() == {}
    assert not (tmp_path / "home/credentials.json").exists(), "logged in"


@pytest.mark.server
def test_the_api_key_goes_to_secrets_manager_and_can_be_replaced(session: Any) -> None:
    arn = bootstrap.keep_api_key(session, "dev", "pnu_1")
    assert bootstrap.keep_api_key(session, "dev", "pnu_2") == arn
    assert (
        session.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"] == "pnu_2"
    )


@pytest.mark.server
def test_no_command_ever_carries_the_api_key(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://api.prefect.cloud/api/accounts/a/workspaces/w")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    settings = bootstrap.prefect_settings(session, "dev")
    assert settings["trainyard:prefect"] == "cloud"
    assert "pnu_secret" not in str(settings)


@pytest.mark.server
def test_without_a_workspace_the_stack_hosts_its_own_server(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert bootstrap.prefect_settings(session, "dev") == {}


def test_without_gh_the_numbers_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match="OWNER_ID="):
        bootstrap.find_repository("acme/rides", "", "")
    given = bootstrap.find_repository("acme/rides", "11", "22")
    assert given == bootstrap.Repository("acme/rides", "11", "22")


def test_gh_gives_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*command: Any, **options: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, "11\t22\n", "")

    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/gh")
    monkeypatch.setattr("subprocess.run", answer)
    found = bootstrap.find_repository("acme/rides", "", "")
    assert found == bootstrap.Repository("acme/rides", "11", "22")


@pytest.mark.server
def test_without_region_or_credentials_one_line_says_so(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert main(["bootstrap"]) == 1
    assert "export AWS_REGION=" in capsys.readouterr().err
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert main(["bootstrap"]) == 1
    said, where = capsys.readouterr().err.splitlines()
    assert "credentials" in said
    assert "error.log" in where


# --- GitHub ---------------------------------------------------------------------------------------
STATE = bootstrap.State("111122223333", "state", "arn:key", "eu-central-1")
ROLES = {"preview_role_arn": "arn:preview", "deploy_role_arn": "arn:deploy"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("trainyard.aws.bootstrap.PROGRAM", tmp_path)
    file = tmp_path / "Pulumi.account.yaml"
    file.write_text("config: {'trainyard:kind': account}\n")
    return file


def test_github_gets_environments_that_only_main_deploys_to(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch)
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert list(github["environments"]) == ["preview", "dev", "prod"]
    assert github["environments"]["preview"] == {}
    assert github["environments"]["dev"]["branches"] == ["main"]
    prod = github["environments"]["prod"]
    assert prod["branches"] == ["main"]
    assert (prod["reviewers[][type]"], prod["reviewers[][id]"]) == ("User", "42")
    assert github["variables"] == {
        "repository": {
            "AWS_REGION": "eu-central-1",
            "AWS_PREVIEW_ROLE_ARN": "arn:preview",
        },
        "dev": {"AWS_DEPLOY_ROLE_ARN": "arn:deploy"},
        "prod": {"AWS_DEPLOY_ROLE_ARN": "arn:deploy"},
    }


def test_pushes_deploy_the_stacks_that_were_bootstrapped(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch)
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {'trainyard:profile': minimal}\n")
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert "STACKS" not in github["variables"]["repository"]
    for stack in ("dev", "prod"):
        file = tmp_path / f"Pulumi.{stack}.yaml"
        file.write_text("config: {'trainyard:accountId': '111122223333'}\n")
        bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert json.loads(github["variables"]["repository"]["STACKS"]) == ["dev", "prod"]


def test_an_environment_that_is_there_keeps_its_rules(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"prod": {"reviewers[][id]": "the whole team"}}
    github = FakeGitHub(tmp_path, monkeypatch, environments=ours)
    for _ in range(2):
        bootstrap.tell_github("acme/rides", STATE, ROLES)
        assert github["environments"]["prod"] == ours["prod"]


def test_the_accounts_settings_name_the_environments(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text("config: {'trainyard:deployEnvironments': [staging]}\n")
    github = FakeGitHub(tmp_path, monkeypatch)
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert list(github["environments"]) == ["preview", "staging"]


def test_a_plan_without_protection_rules_is_said(
    settings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch, plan="free")
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert list(github["environments"]) == ["preview", "dev", "prod"]
    assert github["variables"]["prod"] == {"AWS_DEPLOY_ROLE_ARN": "arn:deploy"}
    said = capsys.readouterr().out
    assert "prod is not protected" in said
    assert "HTTP 422" in said


def test_without_a_login_the_commands_are_printed_and_can_be_typed(
    settings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch, logged_in=False)
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    typed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gh ")]
    assert github["variables"] == {}
    github.set(logged_in=True)
    subprocess.run(["sh", "-ec", "\n".join(typed)], check=True)
    printed = {name: github[name] for name in ("environments", "variables")}

    github.set(environments={}, variables={})
    bootstrap.tell_github("acme/rides", STATE, ROLES)
    assert {name: github[name] for name in printed} == printed
