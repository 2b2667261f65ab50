"""What the stacks' roles may do and what they may not, asked of an emulator that enforces IAM.

The policies are those that the program renders. Whether a call would work isn't asked: only whether
it is let through.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.estimate.recorder import ACCOUNT, REGION, Recording
from tests.infra.components.emulated_iam import HERE, client, refused
from tests.infra.example_stacks import stack
from trainyard.rehearsal.emulator_session import Session

pytestmark = pytest.mark.server
Roles = dict[str, Any]
Call = Callable[[Any], Any]


def here(document: dict[str, Any]) -> str:
    """A recorded document, of the emulator's account and region."""
    return json.dumps(document).replace(ACCOUNT, HERE).replace(REGION, "us-east-1")


# Who may take a role is another test's subject; here root may.
ROOT = {"Principal": {"AWS": f"arn:aws:iam::{HERE}:root"}, "Action": "sts:AssumeRole"}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **ROOT}]})


@pytest.fixture(scope="module")
def account() -> Recording:
    """The account's stack."""
    return stack("account")


@pytest.fixture(scope="module")
def boundary(url: str, account: Recording) -> str:
    """The boundary that the account's stack makes; its ARN."""
    policy = account.one("iam/policy:Policy", "boundary-policy")
    made = client(url, "iam").create_policy(
        PolicyName=policy.plain["name"], PolicyDocument=here(policy.document("policy"))
    )
    return str(made["Policy"]["Arn"])


@pytest.fixture(scope="module")
def roles(url: str, boundary: str) -> Roles:
    """Every role of an environment with the policies that the program gives it; its clients."""
    environment = stack("standard")
    iam, sts = client(url, "iam"), client(url, "sts")
    found: Roles = {}
    iam.create_role(RoleName="admin", AssumeRolePolicyDocument=TRUST)
    for role in environment.of("iam/role:Role"):
        bound = role.plain["permissionsBoundary"].replace(ACCOUNT, HERE)
        assert bound == boundary
        iam.create_role(
            RoleName=f"{role.name}-0123456",
            AssumeRolePolicyDocument=TRUST,
            PermissionsBoundary=bound,
        )
    for policy in environment.of("iam/rolePolicy:RolePolicy"):
        name = f"{policy.name}-0123456"
        iam.put_role_policy(
            RoleName=name, PolicyName="only", PolicyDocument=here(policy.document("policy"))
        )
    for role in environment.of("iam/role:Role"):
        arn = f"arn:aws:iam::{HERE}:role/{role.name}-0123456"
        given = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        short = role.name.removeprefix("trainyard-dev-")
        found[short] = credentials_of(url, given)
    ecs = client(url, "ecs")
    for family, passed in (
        ("prefect_trainyard-dev_train", "trainyard-dev-flows-execution-0123456"),
        ("other", "trainyard-dev-flows-execution-0123456"),
        ("prefect_trainyard-dev_stolen", "admin"),
    ):
        ecs.register_task_definition(
            family=family,
            executionRoleArn=f"arn:aws:iam::{HERE}:role/{passed}",
            containerDefinitions=[{"name": "prefect", "image": "x", "memory": 128}],
        )
    for cluster in ("trainyard-dev", "other"):
        ecs.create_cluster(clusterName=cluster)
    for bucket in (BUCKET, "lake", "other", "acme-state"):
        client(url, "s3").create_bucket(Bucket=bucket)
    return found


def credentials_of(url: str, given: dict[str, str]) -> Callable[[str], Any]:
    return lambda service: client(
        url,
        service,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )


BUCKET = "trainyard-dev-artifacts-bucket-0123456"
FLOWS = [f"arn:aws:iam::{HERE}:role/trainyard-dev-flows-{r}-0123456" for r in ("execution", "task")]
QUEUE = f"http://127.0.0.1/{HERE}/trainyard-dev-ecs-events"


def task(cluster: str, family: str, role: str) -> Call:
    return lambda c: c("ecs").run_task(
        cluster=cluster, taskDefinition=family, overrides={"taskRoleArn": role}
    )


def definition(family: str, role: str) -> Call:
    return lambda c: c("ecs").register_task_definition(
        family=family,
        executionRoleArn=FLOWS[0],
        taskRoleArn=role,
        containerDefinitions=[{"name": "prefect", "image": "x", "memory": 128}],
    )


def put(bucket: str, key: str) -> Call:
    return lambda c: c("s3").put_object(Bucket=bucket, Key=key, Body=b"x")


def get(bucket: str, key: str) -> Call:
    return lambda c: c("s3").get_object(Bucket=bucket, Key=key)


def ls(bucket: str, prefix: str) -> Call:
    return lambda c: c("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)


def secret(name: str) -> Call:
    arn = f"arn:aws:secretsmanager:us-east-1:{HERE}:secret:{name}"
    return lambda c: c("secretsmanager").get_secret_value(SecretId=arn)


def parameter(name: str) -> Call:
    return lambda c: c("ssm").get_parameter(Name=name)


LOG = "flows/served/taxi-trip-duration/day=2026-11-30/x.parquet"
ADMIN = f"arn:aws:iam::{HERE}:role/admin"
FAMILY = "prefect_trainyard-dev_train"
ALLOWED: dict[str, tuple[str, Call]] = {
    "worker runs a flow": ("worker-task", task("trainyard-dev", FAMILY, FLOWS[1])),
    "worker registers a flow": ("worker-task", definition(FAMILY, FLOWS[1])),
    "worker describes any definition": (
        "worker-task",
        lambda c: c("ecs").describe_task_definition(taskDefinition="other"),
    ),
    "worker stops a task": (
        "worker-task",
        lambda c: c("ecs").stop_task(cluster="trainyard-dev", task="1"),
    ),
    "worker reads its queue": (
        "worker-task",
        lambda c: c("sqs").receive_message(QueueUrl=QUEUE),
    ),
    "flow writes a result": ("flows-task", put(BUCKET, "flows/result")),
    "flow reads a result": ("flows-task", get(BUCKET, "flows/result")),
    "flow lists its prefix": ("flows-task", ls(BUCKET, "flows/")),
    "flow reads its source": ("flows-task", get("lake", "taxi/2023-01.parquet")),
    "flow lists its source": ("flows-task", ls("lake", "taxi/")),
    "a flow's start reads MLflow's password": (
        "flows-execution",
        secret("trainyard-dev-mlflow-admin-secret-0123456"),
    ),
    "MLflow writes an artifact": ("mlflow-task", put(BUCKET, "mlflow/1/model")),
    "model server writes its log": ("serve-taxi-trip-duration-task", put(BUCKET, LOG)),
    "deployer reads the outputs": ("deployer-task", parameter("/trainyard/dev/outputs")),
}
DENIED: dict[str, tuple[str, Call]] = {
    "worker runs in another cluster": ("worker-task", task("other", FAMILY, FLOWS[1])),
    "worker runs another family": ("worker-task", task("trainyard-dev", "other", FLOWS[1])),
    "worker passes another role to a run": ("worker-task", task("trainyard-dev", FAMILY, ADMIN)),
    "worker passes a role that a definition hides": (
        "worker-task",
        task("trainyard-dev", "prefect_trainyard-dev_stolen", FLOWS[1]),
    ),
    "worker passes another role to a definition": ("worker-task", definition(FAMILY, ADMIN)),
    "worker registers another family": ("worker-task", definition("other", FLOWS[1])),
    "worker stops a task elsewhere": (
        "worker-task",
        lambda c: c("ecs").stop_task(cluster="other", task="1"),
    ),
    "worker reads another queue": (
        "worker-task",
        lambda c: c("sqs").receive_message(QueueUrl=QUEUE + "-of-others"),
    ),
    "worker sends to its own queue": (
        "worker-task",
        lambda c: c("sqs").send_message(QueueUrl=QUEUE, MessageBody="x"),
    ),
    "worker reads artifacts": ("worker-task", get(BUCKET, "flows/result")),
    "worker makes a role": (
        "worker-task",
        lambda c: c("iam").create_role(RoleName="x", AssumeRolePolicyDocument="{}"),
    ),
    "worker reads a secret": ("worker-task", secret("trainyard-dev-mlflow-admin-secret-0123456")),
    "flow writes MLflow's artifacts": ("flows-task", put(BUCKET, "mlflow/1/model")),
    "flow lists the whole bucket": ("flows-task", ls(BUCKET, "")),
    "flow writes its source": ("flows-task", put("lake", "taxi/x")),
    "flow reads beside its source": ("flows-task", get("lake", "payroll/x")),
    "flow reads another bucket": ("flows-task", get("other", "flows/x")),
    "flow removes the bucket": ("flows-task", lambda c: c("s3").delete_bucket(Bucket=BUCKET)),
    "flow opens the bucket": (
        "flows-task",
        lambda c: c("s3").delete_bucket_policy(Bucket=BUCKET),
    ),
    "flow runs tasks": ("flows-task", task("trainyard-dev", FAMILY, FLOWS[1])),
    "flow reads the database's password": (
        "flows-task",
        secret("trainyard-dev-database-password-secret-0123456"),
    ),
    "a flow's start reads the database's password": (
        "flows-execution",
        secret("trainyard-dev-database-password-secret-0123456"),
    ),
    "a flow's start writes artifacts": ("flows-execution", put(BUCKET, "flows/x")),
    "MLflow reads flows' results": ("mlflow-task", get(BUCKET, "flows/result")),
    "MLflow reads secrets": ("mlflow-task", secret("trainyard-dev-mlflow-admin-secret-0123456")),
    "deployer reads another stack": ("deployer-task", parameter("/trainyard/prod/outputs")),
    "deployer changes the outputs": (
        "deployer-task",
        lambda c: c("ssm").put_parameter(Name="/trainyard/dev/outputs", Value="x", Overwrite=True),
    ),
    "deployer runs tasks": ("deployer-task", task("trainyard-dev", FAMILY, FLOWS[1])),
    "tunnel reads artifacts": ("tunnel-task", get(BUCKET, "flows/result")),
    "model server writes another's log": (
        "serve-taxi-trip-duration-task",
        put(BUCKET, "flows/served/fraud-risk/day=2026-11-30/x.parquet"),
    ),
    "model server reads its log": ("serve-taxi-trip-duration-task", get(BUCKET, LOG)),
    "model server reads scores": ("serve-taxi-trip-duration-task", get(BUCKET, "flows/result")),
    "model server lists flows' results": ("serve-taxi-trip-duration-task", ls(BUCKET, "flows/")),
    "model server writes a model": ("serve-taxi-trip-duration-task", put(BUCKET, "mlflow/1/model")),
    "Prefect's server reads artifacts": ("prefect-task", get(BUCKET, "flows/result")),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(roles: Roles, what: str) -> None:
    role, call = ALLOWED[what]
    assert not refused(lambda: call(roles[role]))


@pytest.mark.parametrize("what", DENIED)
def test_denied(roles: Roles, what: str) -> None:
    role, call = DENIED[what]
    assert refused(lambda: call(roles[role]))


# --- GitHub ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def github(url: str, account: Recording) -> dict[str, str]:
    """The account's delivery roles, as the program trusts and allows them; their ARNs."""
    iam = client(url, "iam")
    iam.create_open_id_connect_provider(
        Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
    )
    found = {}
    for role in account.of("iam/role:Role"):
        iam.create_role(
            RoleName=role.name, AssumeRolePolicyDocument=here(role.document("assumeRolePolicy"))
        )
        for policy in account.of("iam/policy:Policy"):
            if policy.name.startswith(role.name):
                iam.put_role_policy(
                    RoleName=role.name,
                    PolicyName=policy.name,
                    PolicyDocument=here(policy.document("policy")),
                )
        found[role.name.rsplit("-", 1)[1]] = f"arn:aws:iam::{HERE}:role/{role.name}"
    return found


def github_session(url: str, role: str, subject: str, **claims: str) -> Callable[[str], Any]:
    session = Session(home=Path(), port=int(url.rsplit(":", 1)[1]))
    given = session.take_role(role, subject, **claims)
    return lambda service: client(url, service, **{k.lower(): v for k, v in given.items()})


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_job_in_a_deploy_environment_takes_the_deploy_role(
    url: str, github: dict[str, str], environment: str
) -> None:
    subject = f"repo:acme@11/rides@22:environment:{environment}"
    assert not refused(lambda: github_session(url, github["deploy"], subject))


@pytest.mark.parametrize(
    "subject",
    [
        "repo:acme@11/rides@22:pull_request",
        "repo:acme@11/rides@22:ref:refs/heads/main",
        "repo:acme@11/rides@22:ref:refs/heads/x",
        "repo:acme@11/rides@22:ref:refs/heads/environment:prod",
        "repo:acme@11/rides@22:ref:refs/tags/v1",
        "repo:acme@11/rides@22:environment:preview",
        "repo:acme@11/rides@23:environment:prod",
        "repo:acme@12/rides@22:environment:prod",
        "repo:evil@99/rides@22:environment:prod",
        "repo:acme@11/rides@22:environment:prod-2",
        "repo:acme/rides:environment:prod",
        "repo:acme@11/rides@22:environment:*",
        "repo:acme@11/rides@22:environment:PROD",
    ],
)
def test_anyone_else_is_refused(url: str, github: dict[str, str], subject: str) -> None:
    assert refused(lambda: github_session(url, github["deploy"], subject))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://github.com/acme"},
        {"iss": "https://token.example.com"},
        {"repository_id": "23"},
    ],
    ids=["audience", "issuer", "repository"],
)
@pytest.mark.parametrize(("role", "environment"), [("deploy", "prod"), ("preview", "preview")])
def test_a_token_for_somebody_else_is_refused(
    url: str, github: dict[str, str], role: str, environment: str, claims: dict[str, str]
) -> None:
    subject = f"repo:acme@11/rides@22:environment:{environment}"
    assert not refused(lambda: github_session(url, github[role], subject))
    assert refused(lambda: github_session(url, github[role], subject, **claims))


@pytest.mark.parametrize(
    "subject",
    [
        "repo:acme@11/rides@22:pull_request",
        "repo:acme@11/rides@22:ref:refs/heads/main",
        "repo:acme@11/rides@22:environment:dev",
        "repo:evil@99/rides@22:environment:preview",
        "repo:acme@11/rides@23:environment:preview",
    ],
)
def test_only_the_preview_environment_previews(
    url: str, github: dict[str, str], subject: str
) -> None:
    assert refused(lambda: github_session(url, github["preview"], subject))


PREVIEW_MAY_NOT: dict[str, Call] = {
    "read a secret": secret("trainyard-dev-mlflow-admin-secret-0123456"),
    "read artifacts": get(BUCKET, "flows/result"),
    "write the state": put("acme-state", "x"),
    "run tasks": task("trainyard-dev", FAMILY, FLOWS[1]),
    "make a network": lambda c: c("ec2").create_vpc(CidrBlock="10.0.0.0/16"),
    "make a role": lambda c: c("iam").create_role(
        RoleName="trainyard-x", AssumeRolePolicyDocument="{}"
    ),
}
DEPLOYMENT_MAY_NOT: dict[str, Call] = {
    "remove another's bucket": lambda c: c("s3").delete_bucket(Bucket="other"),
    "remove the key of Pulumi's state": lambda c: c("kms").schedule_key_deletion(
        KeyId=f"arn:aws:kms:us-east-1:{HERE}:key/0a-b"
    ),
    "make another role": lambda c: c("iam").create_role(
        RoleName="admin", AssumeRolePolicyDocument="{}"
    ),
    "make its roles mighty": lambda c: c("iam").attach_role_policy(
        RoleName="trainyard-dev-x", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    ),
    "remove another's cluster": lambda c: c("ecs").delete_cluster(cluster="other"),
    "remove another's database": lambda c: c("rds").delete_db_instance(
        DBInstanceIdentifier="payroll"
    ),
    "read another's secret": secret("payroll-0123456"),
    "read another's parameter": parameter("/payroll/key"),
}


DEPLOYMENT_MAY: dict[str, Call] = {
    "read Prefect Cloud's key": secret("trainyard-dev-prefect-api-key-AbCdEf"),
    "note a release": lambda c: c("ssm").put_parameter(
        Name="/trainyard/dev/releases", Value="[]", Overwrite=True
    ),
    "read what was released": parameter("/trainyard/dev/releases"),
    "follow a task's log": lambda c: c("logs").get_log_events(
        logGroupName="/trainyard/dev/deployer", logStreamName="x"
    ),
}


def test_a_preview_may_look(url: str, github: dict[str, str]) -> None:
    preview = github_session(url, github["preview"], "repo:acme@11/rides@22:environment:preview")
    assert not refused(lambda: preview("ec2").describe_vpcs())
    assert not refused(lambda: preview("ssm").get_parameter(Name="/trainyard/dev/ready"))


@pytest.mark.parametrize("what", PREVIEW_MAY_NOT)
def test_a_preview_may_not(url: str, github: dict[str, str], roles: Roles, what: str) -> None:
    preview = github_session(url, github["preview"], "repo:acme@11/rides@22:environment:preview")
    assert refused(lambda: PREVIEW_MAY_NOT[what](preview))


@pytest.mark.parametrize("what", DEPLOYMENT_MAY)
def test_a_deployment_may(url: str, github: dict[str, str], roles: Roles, what: str) -> None:
    deploy = github_session(url, github["deploy"], "repo:acme@11/rides@22:environment:prod")
    assert not refused(lambda: DEPLOYMENT_MAY[what](deploy))


@pytest.mark.parametrize("what", DEPLOYMENT_MAY_NOT)
def test_a_deployment_may_not(url: str, github: dict[str, str], roles: Roles, what: str) -> None:
    deploy = github_session(url, github["deploy"], "repo:acme@11/rides@22:environment:prod")
    assert refused(lambda: DEPLOYMENT_MAY_NOT[what](deploy))


def test_a_deployment_counts_lines_of_its_own_logs_only(url: str, github: dict[str, str]) -> None:
    deploy = github_session(url, github["deploy"], "repo:acme@11/rides@22:environment:prod")

    def count(group: str) -> Any:
        client(url, "logs").create_log_group(logGroupName=group)
        metric = {"metricNamespace": "Trainyard/dev", "metricName": "x", "metricValue": "1"}
        return lambda: deploy("logs").put_metric_filter(
            logGroupName=group, filterName="x", filterPattern="x", metricTransformations=[metric]
        )

    assert not refused(count("/trainyard/dev/counted"))
    assert refused(count("/payroll/counted"))
    assert not refused(lambda: deploy("logs").describe_metric_filters())


# --- the boundary ---------------------------------------------------------------------------------
NEW, BARE = "trainyard-dev-new-0123456", "trainyard-dev-bare-0123456"
OTHERS = f"arn:aws:iam::{HERE}:policy/generous"
DELIVERY = "trainyard-account-github-deploy"
EVERYTHING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
)


def make(name: str, **bound: str) -> Call:
    return lambda c: c("iam").create_role(
        RoleName=name, AssumeRolePolicyDocument=TRUST, Description="x", **bound
    )


def on(role: str, call: str, **arguments: str) -> Call:
    return lambda c: getattr(c("iam"), call)(RoleName=role, **arguments)


def policy(call: str, **arguments: Any) -> Call:
    arn = f"arn:aws:iam::{HERE}:policy/trainyard-boundary"
    return lambda c: getattr(c("iam"), call)(PolicyArn=arn, **arguments)


@pytest.fixture(scope="module")
def deploy(url: str, github: dict[str, str], boundary: str) -> Callable[[str], Any]:
    """The deploy role's clients, beside a role that it made and one without a boundary."""
    root, clients = (
        client(url, "iam"),
        github_session(url, github["deploy"], "repo:acme@11/rides@22:environment:prod"),
    )
    make(NEW, PermissionsBoundary=boundary)(clients)
    root.create_role(RoleName=BARE, AssumeRolePolicyDocument=TRUST)
    root.create_policy(PolicyName="generous", PolicyDocument=EVERYTHING)
    return clients


MIGHTY = {"PolicyName": "all", "PolicyDocument": EVERYTHING}
GENEROUS = {"PolicyArn": OTHERS}
ESCALATIONS: dict[str, Call] = {
    "makes a role without a boundary": make("trainyard-dev-x"),
    "makes a role with another boundary": make("trainyard-dev-x", PermissionsBoundary=OTHERS),
    "gives a policy to a role without a boundary": on(BARE, "put_role_policy", **MIGHTY),
    "gives a policy to itself": on(DELIVERY, "put_role_policy", **MIGHTY),
    "attaches a policy to itself": on(DELIVERY, "attach_role_policy", **GENEROUS),
    "changes who may take it": on(DELIVERY, "update_assume_role_policy", PolicyDocument=TRUST),
    "removes the role that previews": on("trainyard-account-github-preview", "delete_role"),
    "puts itself under the boundary": on(
        DELIVERY,
        "put_role_permissions_boundary",
        PermissionsBoundary=f"arn:aws:iam::{HERE}:policy/trainyard-boundary",
    ),
    "takes the boundary off": on(NEW, "delete_role_permissions_boundary"),
    "widens a role's boundary": on(
        NEW, "put_role_permissions_boundary", PermissionsBoundary=OTHERS
    ),
    "removes the boundary": policy("delete_policy"),
    "rewrites the boundary": policy(
        "create_policy_version", PolicyDocument=EVERYTHING, SetAsDefault=True
    ),
    "goes back to an older boundary": policy("set_default_policy_version", VersionId="v1"),
    "removes a version of the boundary": policy("delete_policy_version", VersionId="v2"),
    "makes a policy": lambda c: c("iam").create_policy(
        PolicyName="trainyard-all", PolicyDocument=EVERYTHING
    ),
    "makes a user": lambda c: c("iam").create_user(UserName="trainyard-x"),
}


@pytest.mark.parametrize("what", ESCALATIONS)
def test_a_deployment_that_escalates_is_refused(deploy: Callable[[str], Any], what: str) -> None:
    assert refused(lambda: ESCALATIONS[what](deploy))


def test_a_deployment_puts_the_boundary_back(
    url: str, deploy: Callable[[str], Any], boundary: str
) -> None:
    client(url, "iam").create_role(RoleName="trainyard-dev-lost", AssumeRolePolicyDocument=TRUST)
    on("trainyard-dev-lost", "put_role_permissions_boundary", PermissionsBoundary=boundary)(deploy)
    on("trainyard-dev-lost", "put_role_policy", **MIGHTY)(deploy)


BEYOND: dict[str, Call] = {
    "makes a role": make("trainyard-dev-y"),
    "reads another bucket": get("other", "x"),
    "reads beside the sources": get("lake", "payroll/x"),
    "writes a source": put("lake", "taxi/x"),
    "reads another's secret": secret("payroll-0123456"),
    "opens Pulumi's state": lambda c: c("kms").decrypt(
        CiphertextBlob=b"x", KeyId=f"arn:aws:kms:us-east-1:{HERE}:key/0a"
    ),
    "takes its boundary off": on(NEW, "delete_role_permissions_boundary"),
    "closes the account": lambda c: c("organizations").leave_organization(),
}


@pytest.fixture(scope="module")
def mighty(url: str, roles: Roles, deploy: Callable[[str], Any]) -> Callable[[str], Any]:
    """The clients of a bounded role that has been given everything, twice."""
    on(NEW, "put_role_policy", **MIGHTY)(deploy)
    client(url, "iam").attach_role_policy(
        RoleName=NEW, PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    given = client(url, "sts").assume_role(
        RoleArn=f"arn:aws:iam::{HERE}:role/{NEW}", RoleSessionName="test"
    )
    return credentials_of(url, given["Credentials"])


@pytest.mark.parametrize("what", BEYOND)
def test_an_administrator_under_the_boundary_is_none(
    mighty: Callable[[str], Any], what: str
) -> None:
    assert refused(lambda: BEYOND[what](mighty))


def test_an_administrator_under_the_boundary_reaches_the_stacks_own(
    mighty: Callable[[str], Any],
) -> None:
    assert not refused(lambda: put(BUCKET, "flows/x")(mighty))
    assert not refused(lambda: get("lake", "taxi/2023-01.parquet")(mighty))
