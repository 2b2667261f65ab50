"""`make bootstrap` as a user runs it, in an empty account: state in S3, its secrets by KMS."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from infra.rehearsal.session import REPOSITORY, ROOT, SUBJECT, Session

ACCOUNT = "111122223333"  # beside the emulator's own, in which the other rehearsals are
API_KEY = "pnu_rehearsed"
Job = Callable[[str, str], dict[str, str]]
BUILT = [part for stamp in (".venv/.laptop", ".venv-infra/.infra") for part in ("-o", stamp)]


@dataclass
class Account:
    """An AWS account, and a copy of the project from which it is set up."""

    folder: Path
    environment: dict[str, str]
    boto: Any

    def bootstrap(self, **arguments: str) -> str:
        """`make bootstrap`, and what it says."""
        return self.run("make", *BUILT, "bootstrap", *[f"{k}={v}" for k, v in arguments.items()])

    def run(self, *command: str, fails: bool = False, **more: str) -> str:
        """What a command says, which does or doesn't fail."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-6000:]
        return said

    def settings(self, stack: str) -> dict[str, Any]:
        """What Pulumi.<stack>.yaml says."""
        file: dict[str, Any] = yaml.safe_load(self.file(stack).read_text())
        return file

    def file(self, stack: str) -> Path:
        return self.folder / f"infra/Pulumi.{stack}.yaml"


@pytest.fixture(scope="module")
def account(emulator: Session, tmp_path_factory: pytest.TempPathFactory) -> Account:
    folder = tmp_path_factory.mktemp("project")
    for part in ("infra", "requirements"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "Makefile", folder)
    for environment in (".venv", ".venv-infra"):
        (folder / environment).symlink_to(ROOT / environment)
    found = Account(
        folder,
        {
            **os.environ,
            **emulator.environment(),
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "PULUMI_CREDENTIALS_PATH": str(folder),  # who runs the tests stays logged in elsewhere
            "PREFECT_API_URL": "https://api.prefect.cloud/api/accounts/a/workspaces/w",
            "PREFECT_API_KEY": API_KEY,
        },
        boto3.Session(ACCOUNT, "test", region_name="us-east-1"),
    )
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        del found.environment[name]
    # The emulator knows a token's subject only.
    left_out = {"config": {"trainyard:leaveOut": ["oidc-repository-id"]}}
    found.file("account").write_text(yaml.safe_dump(left_out))
    return found


@pytest.fixture(scope="module")
def said(account: Account) -> str:
    """What the first `make bootstrap` says."""
    return account.bootstrap(
        STACK="dev",
        REPO=REPOSITORY["githubRepository"],
        OWNER_ID=REPOSITORY["githubOwnerId"],
        REPOSITORY_ID=REPOSITORY["githubRepositoryId"],
    )


def test_an_empty_account_gets_its_stack_and_an_environments_settings(
    account: Account, said: str
) -> None:
    assert "next: make up STACK=dev" in said.splitlines()
    policies = account.boto.client("iam").list_policies(Scope="Local")["Policies"]
    assert "trainyard-boundary" in {p["PolicyName"] for p in policies}
    for stack in ("account", "dev"):
        assert account.settings(stack)["config"]["trainyard:accountId"] == ACCOUNT
        assert account.settings(stack)["secretsprovider"].startswith("awskms://")


def test_the_state_is_in_the_accounts_bucket(account: Account, said: str) -> None:
    s3 = account.boto.client("s3")
    bucket = account.settings("account")["config"]["trainyard:stateBucket"]
    state = s3.get_object(Bucket=bucket, Key=".pulumi/stacks/trainyard/account.json")["Body"].read()
    assert b"trainyard-boundary" in state


def test_the_api_key_is_in_secrets_manager_and_nowhere_else(account: Account, said: str) -> None:
    arn = account.settings("dev")["config"]["trainyard:prefectApiKeySecretArn"]
    kept = account.boto.client("secretsmanager").get_secret_value(SecretId=arn)
    assert kept["SecretString"] == API_KEY
    assert API_KEY not in said
    s3 = account.boto.client("s3")
    bucket = account.settings("account")["config"]["trainyard:stateBucket"]
    for each in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        body = s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
        assert API_KEY.encode() not in body, each["Key"]
    for path in (account.folder / "infra").glob("Pulumi*.yaml"):
        assert API_KEY not in path.read_text()


def test_a_second_bootstrap_changes_nothing(account: Account, said: str) -> None:
    before = {stack: account.settings(stack) for stack in ("account", "dev")}
    again = account.bootstrap(STACK="dev")
    assert re.search(r"Resources:\s+\d+ unchanged\s", again), again[-3000:]
    assert {stack: account.settings(stack) for stack in before} == before


@pytest.fixture(scope="module")
def job(account: Account, said: str, emulator: Session) -> Job:
    """Credentials of a job in a GitHub environment."""
    shown = account.run("pulumi", "--cwd", "infra", "stack", "output", "--json", "-s", "account")
    roles = json.loads(shown)
    return lambda role, environment: emulator.take_role(
        roles[f"{role}_role_arn"], SUBJECT.format(environment=environment)
    )


PULUMI = ("pulumi", "--cwd", "infra", "--stack", "dev")
# The smallest change of a state: nothing is there yet.
WRITE = (*PULUMI, "refresh", "--yes", "--skip-preview")


def test_jobs_on_github_preview_the_environment_from_the_state(account: Account, job: Job) -> None:
    for role, environment in (("deploy", "dev"), ("preview", "preview")):
        said = account.run(*PULUMI, "preview", **job(role, environment))
        assert re.search(r"\+ \d+ to create", said), said[-3000:]


def test_the_deploy_role_writes_the_state_and_the_preview_role_cannot(
    account: Account, job: Job
) -> None:
    account.run(*WRITE, **job("deploy", "dev"))
    refusal = account.run(*WRITE, fails=True, **job("preview", "preview"))
    assert "AccessDenied" in refusal, refusal[-3000:]


def test_the_preview_role_finds_what_was_changed_by_hand(account: Account, job: Job) -> None:
    drift = ("make", *BUILT, "drift", "STACK=account")
    assert "no drift" in account.run(*drift, **job("preview", "preview"))
    account.boto.client("ecr").delete_lifecycle_policy(repositoryName="trainyard/flow")
    said = account.run(*drift, fails=True, **job("preview", "preview"))
    assert "| ecr/lifecyclePolicy | images-flow | is gone |" in said
