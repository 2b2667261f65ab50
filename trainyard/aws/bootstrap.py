"""`make bootstrap`: what must exist before the first `make up STACK=`; safe to repeat.

Pulumi's state (a bucket, a key for its secrets), the account's stack, an environment's settings;
Prefect Cloud's API key into Secrets Manager and nowhere else; with REPO= the repository's variables
and environments on GitHub.
"""

import getpass
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainyard.aws.pulumi_cli import Pulumi
from trainyard.contract.naming import PREVIEW_ENVIRONMENT, Names
from trainyard.contract.settings import Settings
from trainyard.paths import PROGRAM
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.gh import GhError, gh, logged_in

ALIAS = "alias/trainyard-state"
# The environment to which a person says yes first.
APPROVED = "prod"


@dataclass(frozen=True)
class State:
    """Where Pulumi keeps its state."""

    account: str
    bucket: str
    key_arn: str
    region: str

    @property
    def backend(self) -> str:
        return f"s3://{self.bucket}?region={self.region}"

    @property
    def secrets_provider(self) -> str:
        return f"awskms://{ALIAS}?region={self.region}"


def make_state(session: Any) -> State:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    account = session.client("sts").get_caller_identity()["Account"]
    region = session.region_name
    kms = session.client("kms")
    try:
        key = kms.describe_key(KeyId=ALIAS)["KeyMetadata"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NotFoundException":
            raise
        key = kms.create_key(Description="Secrets in Pulumi's state")["KeyMetadata"]
        kms.create_alias(AliasName=ALIAS, TargetKeyId=key["KeyId"])
    kms.enable_key_rotation(KeyId=key["KeyId"])

    # Not `trainyard-...`: buckets of that name are the stacks', and who deploys may remove them.
    bucket = f"pulumi-trainyard-{account}-{region}"
    s3 = session.client("s3")
    # us-east-1 is the one region that S3 doesn't want to be told.
    where = {} if region == "us-east-1" else {"LocationConstraint": region}
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": where} if where else {}))
    blocked = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(blocked, True)
    )
    # A state that was overwritten by mistake can be brought back.
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    arn = f"arn:{key['Arn'].split(':')[1]}:s3:::{bucket}"
    refused = {
        "Sid": "RefuseClearText",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [refused]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    return State(account, bucket, key["Arn"], region)


def keep_api_key(session: Any, stack: str, key: str) -> str:
    """Put Prefect Cloud's API key into Secrets Manager; gives the secret's ARN."""
    secrets = session.client("secretsmanager")
    name = Names(stack)("prefect-api-key")
    try:
        secrets.put_secret_value(SecretId=name, SecretString=key)
        return str(secrets.describe_secret(SecretId=name)["ARN"])
    except secrets.exceptions.ResourceNotFoundException:
        return str(secrets.create_secret(Name=name, SecretString=key)["ARN"])


@dataclass(frozen=True)
class Repository:
    """A GitHub repository with the numbers that its tokens carry."""

    name: str
    owner_id: str
    id: str


def find_repository(name: str, owner_id: str, repository_id: str) -> Repository:
    """The repository's numbers: as given, or by the gh command."""
    if owner_id and repository_id:
        return Repository(name, owner_id, repository_id)
    if not shutil.which("gh"):
        raise StackError(
            f"GitHub's tokens name {name} by numbers. Without the gh command, read `owner.id` "
            f"and `id` at https://api.github.com/repos/{name} and give them: "
            f"make bootstrap REPO={name} OWNER_ID=... REPOSITORY_ID=..."
        )
    return Repository(name, *gh("api", f"repos/{name}", "--jq", "[.owner.id, .id] | @tsv").split())


def prepare_stack(name: str, state: State, settings: dict[str, str]) -> None:
    from pulumi.automation import ConfigValue

    pulumi = Pulumi(name, environment={"PULUMI_BACKEND_URL": state.backend})
    pulumi.make(state.secrets_provider)
    given = {
        "aws:region": state.region,
        "trainyard:accountId": state.account,
        "trainyard:backend": state.backend,
        **settings,
    }
    pulumi.api.set_all_config({key: ConfigValue(value) for key, value in given.items()})


# --- GitHub ---------------------------------------------------------------------------------------
ME = "reviewers[][id]={me}"


def deploy_environments() -> list[str]:
    """GitHub environments whose jobs may take the deploy role, by the account's settings."""
    default = Settings.model_fields["deploy_environments"].default
    return list(Pulumi("account", PROGRAM).settings().get("trainyard:deployEnvironments", default))


def prepared(stack: str) -> bool:
    return "trainyard:accountId" in Pulumi(stack, PROGRAM).settings()


def make_environment(repository: str, name: str) -> list[list[str]]:
    """What `gh` is told to make an environment of a repository; only main deploys."""
    place = f"repos/{repository}/environments/{name}"
    make = ["api", "--silent", "--method", "PUT", place]
    if name == PREVIEW_ENVIRONMENT:
        return [make]
    if name == APPROVED:
        make += ["-F", "reviewers[][type]=User", "-F", ME]
    for policy, value in (("protected_branches", "false"), ("custom_branch_policies", "true")):
        make += ["-F", f"deployment_branch_policy[{policy}]={value}"]
    main = ["-f", "name=main", "-f", "type=branch"]
    policies = f"{place}/deployment-branch-policies"
    return [make, ["api", "--silent", "--method", "POST", policies, *main]]


def set_variables(
    repository: str, environments: Sequence[str], state: State, roles: Mapping[str, str]
) -> list[list[str]]:
    """What `gh` is told to set the variables that the workflows read."""

    def command(name: str, value: str, *where: str) -> list[str]:
        return ["variable", "set", name, "--repo", repository, "--body", value, *where]

    # What pushes deploy, one after the other. (GitHub takes no empty variable.)
    stacks = [each for each in environments if prepared(each)]
    deploy = roles["deploy_role_arn"]
    return [
        *([command("STACKS", json.dumps(stacks))] if stacks else []),
        command("AWS_REGION", state.region),
        command("AWS_PREVIEW_ROLE_ARN", roles["preview_role_arn"]),
        *(command("AWS_DEPLOY_ROLE_ARN", deploy, "--env", each) for each in environments),
    ]


def tell_github(repository: str, state: State, roles: Mapping[str, str]) -> None:
    """Make the repository's environments and set its variables; without `gh`, say how.

    An environment that is there stays as it is: its reviewers may be others by now.
    """
    deploying = deploy_environments()
    environments = [PREVIEW_ENVIRONMENT, *deploying]
    variables = set_variables(repository, deploying, state, roles)
    if not logged_in():
        say("\nThe gh command isn't here, or not logged in. Type this where it is:\n")
        made = [c for each in environments for c in make_environment(repository, each)]
        for command in [*made, *variables]:
            # The shell fills in who types it.
            typed = shlex.join(["gh", *command])
            say(typed.replace(f"'{ME}'", '"reviewers[][id]=$(gh api user --jq .id)"'))
        say("")
        return
    there = gh("api", f"repos/{repository}/environments", "--jq", ".environments[].name").split()
    for environment in environments:
        if environment not in there:
            _make(repository, environment)
    for command in variables:
        gh(*command)
    say(f"GitHub: {repository} has the environments {', '.join(environments)} and its variables")


def _make(repository: str, environment: str) -> None:
    make, *policies = make_environment(repository, environment)
    me = gh("api", "user", "--jq", ".id") if ME in make else ""
    try:
        gh(*[part.format(me=me) if part == ME else part for part in make])
    except GhError as error:
        # A plan without protection rules for private repositories still has environments.
        gh(*make[: make.index("-F")] if "-F" in make else make)
        say(
            f"GitHub: {environment} is not protected ({error}). Whoever pushes to any branch can "
            f"deploy to it: https://github.com/{repository}/settings/environments"
        )
        return
    for policy in policies:
        gh(*policy)


def bootstrap(stack: str, repository_name: str, owner_id: str, repository_id: str) -> None:
    """Make what the first push needs; `gh` is asked for numbers of the repository not given."""
    import boto3

    session = boto3.Session(region_name=os.environ.get("AWS_REGION"))
    if not session.region_name:
        raise StackError("which region? Set it: export AWS_REGION=eu-central-1")
    repository = None
    if repository_name:
        repository = find_repository(repository_name, owner_id, repository_id)
    state = make_state(session)
    account = {"trainyard:kind": "account"}
    if repository:
        account |= {
            "trainyard:githubRepository": repository.name,
            "trainyard:githubOwnerId": repository.owner_id,
            "trainyard:githubRepositoryId": repository.id,
            "trainyard:stateBucket": state.bucket,
            "trainyard:stateKeyArn": state.key_arn,
        }
    prepare_stack("account", state, account)
    Pulumi("account").up()
    if stack:
        prepare_stack(stack, state, prefect_settings(session, stack))
    if repository:
        tell_github(repository.name, state, Pulumi("account").outputs())
    say(f"Pulumi's state: {state.backend}")
    files = [f"infra/Pulumi.{each}.yaml" for each in ("account", stack) if each]
    say(f"commit: git add {' '.join(files)} && git commit -m 'The settings of our stacks'")
    by_hand = f"make publish && make release STACK={stack or 'dev'}"
    pushed = f"git push, and GitHub deploys; by hand: {by_hand}"
    alone = f"{by_hand}   # for pushes to deploy: this again, with REPO="
    say(f"next: {pushed if repository else alone}")


def prefect_settings(session: Any, stack: str) -> dict[str, str]:
    """An environment's settings for Prefect Cloud, where PREFECT_API_URL names a workspace."""
    url = os.environ.get("PREFECT_API_URL", "")
    if "/accounts/" not in url:
        return {}
    key = os.environ.get("PREFECT_API_KEY") or getpass.getpass("Prefect Cloud's API key: ")
    return {
        "trainyard:prefect": "cloud",
        "trainyard:prefectApiUrl": url,
        "trainyard:prefectApiKeySecretArn": keep_api_key(session, stack, key),
    }
