"""From an empty account to runs and back, by the commands of docs/aws.md in their order.

Pulumi's state is in S3 and its secrets by KMS, images come from the account's registry by digest,
and Prefect's side is what stands in for Prefect Cloud.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.conftest import ROOT, STAMPS
from trainyard.laptop.processes import end
from trainyard.rehearsal import fake_prefect_cloud as cloud
from trainyard.rehearsal import iam_usage as rights
from trainyard.rehearsal.emulator_session import REPOSITORY, SUBJECT, Session
from trainyard.rehearsal.inventory import inventory

ACCOUNT = "111122223333"  # beside the emulator's own, in which the other rehearsals are
API_KEY = "pnu_rehearsed"
Job = Callable[[str, str], dict[str, str]]
AUTHOR = ("-c", "user.name=A stranger", "-c", "user.email=stranger@example.com")
RUN = ".venv/bin/prefect deployment run taxi-train/taxi-train"
# This is about the path, and not about the model.
QUICKLY = ("-p", "num_trials=2", "-p", "max_inference_time=0.001", "--watch")

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(1200)]

PAGE = (ROOT / "docs/aws.md").read_text()
COPIED = ("docker", "flows", "infra", "requirements", "trainyard")
# What the page has and a test can't: another way to step 3, and what the environment has here.
ELSEWHERE = {"export AWS_REGION=eu-central-1", "git push"}


def commands() -> list[str]:
    """All that the page says to type."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.split("   #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line not in ELSEWHERE and "export PREFECT_" not in line]


@dataclass
class Account:
    """An AWS account, and a copy of the project from which it is set up."""

    folder: Path
    environment: dict[str, str]
    boto: Any
    left: list[str] = field(default_factory=commands)
    """What the page says to type next."""
    seconds: list[tuple[str, float]] = field(default_factory=list)
    """What took how long, in order."""
    sourced: str = ". infra/use dev"
    """What was typed before a `pulumi`."""

    def bootstrap(self, **arguments: str) -> str:
        """`make bootstrap`, and what it says."""
        return self.make("bootstrap", *[f"{k}={v}" for k, v in arguments.items()])

    def make(self, *words: str, fails: bool = False, **more: str) -> str:
        """What `make` says, with its environments in place."""
        started = time.monotonic()
        said = self.run("make", *STAMPS, *words, fails=fails, **more)
        self.seconds.append((" ".join(words), round(time.monotonic() - started, 1)))
        return said

    def type(self, expected: str, **more: str) -> str:
        """Type the page's next command, which is this one."""
        assert self.left.pop(0) == expected
        command, *words = shlex.split(expected)
        if command == ".":
            self.sourced = expected
            return ""
        return self.make(*words, **more) if command == "make" else self.run(command, *words, **more)

    def run(self, *command: str, fails: bool = False, **more: str) -> str:
        """What a command says, which does or doesn't fail."""
        if command[0] == "pulumi":
            command = ("bash", "-c", f"{self.sourced} && {shlex.join(command)}")
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

    def commit(self, message: str) -> None:
        """Commit all there is."""
        self.run("git", "add", "-A")
        self.run("git", *AUTHOR, "commit", "-q", "--allow-empty", "-m", message)


@pytest.fixture(scope="module")
def account(emulator: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("project")
    for part in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for file in ("Makefile", "prefect.yaml", "pyproject.toml", ".dockerignore", ".gitignore"):
        shutil.copy(ROOT / file, folder)
    for environment in (".venv", ".venv-infra", ".venv-policy"):
        (folder / environment).symlink_to(ROOT / environment)
    home = tmp_path_factory.mktemp("cloud")
    process = cloud.start(home, API_KEY)
    found = Account(
        folder,
        {
            **os.environ,
            **emulator.environment(),
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "PULUMI_CREDENTIALS_PATH": str(home),  # logged in nowhere
            "PREFECT_API_URL": cloud.URL,
            "PREFECT_API_KEY": API_KEY,
            "PREFECT_HOME": str(home / "client"),
            "PYTHONPATH": str(folder),
            "COLUMNS": "200",  # tables are read, too
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            # ECR's host leads to AWS; here the emulator is the registry, too
            "TRAINYARD_REGISTRY": f"{emulator.url.removeprefix('http://')}/trainyard",
        },
        boto3.Session(ACCOUNT, "test", region_name="us-east-1"),
    )
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        del found.environment[name]
    found.run("git", "init", "-q", "-b", "main")
    # links here, and folders in a clone
    (folder / ".git/info/exclude").write_text(".venv*\n")
    found.commit("Initial commit")
    try:
        yield found
    finally:
        print(*found.seconds, sep="\n")
        end([process])


@pytest.fixture(scope="module")
def said(account: Account) -> str:
    """What the first `make bootstrap` says."""
    assert account.left.pop(0) == "make bootstrap STACK=dev REPO=owner/name"
    return account.bootstrap(
        STACK="dev",
        REPO=REPOSITORY["githubRepository"],
        OWNER_ID=REPOSITORY["githubOwnerId"],
        REPOSITORY_ID=REPOSITORY["githubRepositoryId"],
    )


def test_an_empty_account_gets_its_stack_and_an_environments_settings(
    account: Account, said: str
) -> None:
    by_hand = "make publish && make release STACK=dev"
    assert f"\nnext: git push, and GitHub deploys; by hand: {by_hand}\n" in said
    policies = account.boto.client("iam").list_policies(Scope="Local")["Policies"]
    assert "trainyard-boundary" in {p["PolicyName"] for p in policies}
    for stack in ("account", "dev"):
        assert account.settings(stack)["config"]["trainyard:accountId"] == ACCOUNT
        assert account.settings(stack)["secretsprovider"].startswith("awskms://")
        assert account.settings(stack)["config"]["trainyard:backend"].startswith("s3://")


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
    assert "# for pushes to deploy: this again, with REPO=\n" in again
    assert {stack: account.settings(stack) for stack in before} == before


@pytest.fixture(scope="module")
def job(account: Account, said: str, emulator: Session) -> Job:
    """Credentials of a job in a GitHub environment."""
    shown = account.run("pulumi", "--cwd", "infra", "stack", "output", "--json", "-s", "account")
    roles = json.loads(shown)
    return lambda role, environment: emulator.take_role(
        roles[f"{role}_role_arn"], SUBJECT.format(environment=environment)
    )


PULUMI = ("pulumi", "--cwd", "infra")
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
    drift = ("drift", "STACK=account")
    assert "no drift" in account.make(*drift, **job("preview", "preview"))
    account.boto.client("ecr").delete_lifecycle_policy(repositoryName="trainyard/flow")
    said = account.make(*drift, fails=True, **job("preview", "preview"))
    assert "| ecr/lifecyclePolicy | images-flow | is gone |" in said


# --- the first deployment -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def deployed(account: Account, job: Job) -> Account:
    """The account with a first release, made as a job of GitHub makes it."""
    account.type(". infra/use dev")
    account.type("pulumi --cwd infra config set activeSchedules true")
    account.type("pulumi --cwd infra config set durable false")
    account.type("pulumi --cwd infra config set --path 'alarmEmails[0]' you@example.com")
    # The other rehearsals have the default, minimal.
    account.run(*PULUMI, "config", "set", "profile", "standard")
    account.type("git add infra/Pulumi.account.yaml infra/Pulumi.dev.yaml")
    assert account.left.pop(0) == 'git commit -m "Our stacks"'
    account.commit("Our stacks")
    account.environment |= job("deploy", "dev")
    del account.environment["PREFECT_API_KEY"]  # a job has none: it reads the secret
    account.type("make publish")
    account.type("make release STACK=dev")
    return account


def test_the_first_release_brings_up_the_stack_and_its_smoke_run_completes(
    deployed: Account,
) -> None:
    ecs = deployed.boto.client("ecs")
    (cluster,) = ecs.list_clusters()["clusterArns"]
    running = ecs.describe_services(
        cluster=cluster, services=ecs.list_services(cluster=cluster)["serviceArns"]
    )["services"]
    assert {each["runningCount"] for each in running} == {1}
    images = set()
    for service in running:
        described = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])
        (container,) = described["taskDefinition"]["containerDefinitions"]
        images.add(container["image"])
    assert images == {released(deployed)[name] for name in ("worker", "mlflow")}


def released(account: Account) -> dict[str, str]:
    """The images of the last `make publish`, by digest."""
    release = json.loads((account.folder / ".trainyard/release.json").read_text())
    images: dict[str, str] = release["images"]
    return images


def test_the_same_push_again_deploys_nothing(deployed: Account) -> None:
    deployed.commit("A word in the README")
    deployed.make("publish")
    assert "nothing to deploy" in deployed.make("release", "STACK=dev")


def test_doctor_and_status_find_all_well(deployed: Account) -> None:
    deployed.type("make doctor STACK=dev")
    assert "held_back" in deployed.type("make status STACK=dev")


TRAINYARD = (f"{ROOT}/.venv/bin/python", "-m", "trainyard")


def test_a_run_trains_a_champion_and_the_next_is_in_the_calendar(deployed: Account) -> None:
    assert deployed.left.pop(0) == RUN
    said = deployed.run(*RUN.split(), *QUICKLY, PREFECT_API_KEY=API_KEY)
    assert "Completed" in said, said[-3000:]
    upcoming = deployed.run(
        *("prefect", "flow-run", "ls", "--state-type", "SCHEDULED"), PREFECT_API_KEY=API_KEY
    )
    assert "taxi-train" in upcoming
    listed = deployed.run(*TRAINYARD, "model", "list", "taxi-trip-duration", "dev")
    assert "the first one, rmse " in listed


def test_a_push_with_a_new_flow_leaves_the_servers_alone_and_can_be_taken_back(
    deployed: Account,
) -> None:
    path = deployed.folder / "flows/smoke/smoke.py"
    path.write_text(f"{path.read_text()}\n# a push\n")
    deployed.commit("A new flow")
    first = released(deployed)
    deployed.make("publish")
    said = deployed.make("release", "STACK=dev")
    print(said[said.rindex("\ndev: ") :])  # its steps
    changed = {name for name, image in released(deployed).items() if image != first[name]}
    assert changed == {"flow"}
    assert "migrating" not in said
    deployed.make("rollback", "STACK=dev")
    shown = deployed.run(*PULUMI, "stack", "output", "--json")
    outputs = json.loads(shown)
    assert outputs["flow_image"] == first["flow"]


def test_roles_may_do_what_was_used_and_nothing_else(deployed: Account, emulator: Session) -> None:
    granted = rights.grants(deployed.boto, "trainyard-dev-")
    assert rights.problems(granted, rights.decisions(emulator.log())) == []


def test_down_leaves_what_the_page_says(deployed: Account) -> None:
    deployed.type("make down STACK=dev")
    left = inventory(deployed.boto)
    for kind in ("clusters", "databases", "networks", "queues", "task definitions"):
        assert left[kind] == [], kind


def test_a_person_ends_the_accounts_stack_as_the_page_says(account: Account) -> None:
    person = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test"}
    account.environment.pop("AWS_SESSION_TOKEN", None)  # that of a job
    refused = account.make("down", "STACK=account", fails=True, **person)
    assert "nothing was removed" in refused
    account.type(". infra/use account")
    account.type("pulumi --cwd infra config set durable false", **person)
    account.type("make up STACK=account", **person)
    account.type("make down STACK=account", **person)
    assert account.left == []
    assert account.boto.client("ecr").describe_repositories()["repositories"] == []
    roles = account.boto.client("iam").list_roles()["Roles"]
    assert [each["RoleName"] for each in roles if each["RoleName"].startswith("trainyard-")] == []
