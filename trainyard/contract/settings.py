"""A stack's settings, read from its file by stack_config.py; an owner's own: infra/settings.py."""

import json
from contextlib import suppress
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from trainyard.contract.outputs import FLOWS_DATABASE
from trainyard.contract.profiles import PROFILES, Profile

PROJECT = "trainyard"

DIGEST = r"^$|^([\w.:/-]+@)?sha256:[0-9a-f]{64}$"
SECRET_ARN = r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+$"  # noqa: S105
# Of 64 in a role's name `trainyard-<stack>-serve-<model>-execution-<7 of Pulumi's>`.
SERVED_NAME = 29
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 180, 365, 400, 545, 731)


def _network(value: str) -> str:
    network = IPv4Network(value)
    if not 16 <= network.prefixlen <= 22 or not network.is_private:
        raise ValueError("not a private network of a fitting size")
    return value


def _source(value: str) -> str:
    if IPv4Network(value).is_global:
        raise ValueError("not a network of one's own")
    return value


def _log_days(value: int) -> int:
    if value not in (0, *LOG_RETENTION_DAYS):
        raise ValueError("not a retention that CloudWatch knows")
    return value


Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
SourcePrefix = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^*?]*$")]
SubnetId = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]
SecurityGroupId = Annotated[str, Field(pattern=r"^sg-[0-9a-f]+$")]
PrivateCidr = Annotated[str, AfterValidator(_source)]
# What a name in DNS may be.
ServedModel = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Secret = Annotated[str, Field(pattern=f"^{SECRET_ARN}")]
Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class ContradictionError(ValueError):
    """A setting that is right by itself and can't be beside the others: what it should be."""


def setting(
    description: str, allowed: str = "", *, default: Any = "", by: str = "owner", **constraints: Any
) -> Any:
    """Declare a setting: what it does, what it may be, and its default.

    Args:
        allowed: in words; what follows from its type (bool, Literal, `ge=`) needs none.
        by: who writes it: its owner, `bootstrap`, or `tool` for what no owner should.
    """
    extra: JsonDict = {"by": by, "allowed": allowed}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Settings(BaseModel):
    """What a stack is told. Empty text and empty lists mean "not given"."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_default=True
    )

    stack: str = setting(
        "Its name.",
        "2 to 12 of a-z, 0-9 and -, a letter first: names of AWS resources are built from it",
        default=...,
        pattern=r"^[a-z][a-z0-9-]{0,10}[a-z0-9]$",
    )
    region: str = setting(
        "Where it is.",
        "a region, such as eu-central-1",
        default=...,
        pattern=r"^[a-z]{2}(-[a-z]+)+-\d$",
    )

    # Every stack
    kind: Literal["environment", "account"] = setting(
        "What this stack holds: an environment, or what an AWS account has once (images, roles).",
        default="environment",
        by="bootstrap",
    )
    permissions_boundary: str = setting(
        "A policy of yours to bound every role, in place of `trainyard-boundary`; in every stack.",
        "the ARN of an IAM policy",
        pattern=r"^$|^arn:aws[a-z-]*:iam::(\d{12}|aws):policy/[\w+=,.@/-]+$",
    )
    account_id: str = setting(
        "The AWS account that this stack belongs to: credentials of another one are refused.",
        "12 digits",
        pattern=r"^(\d{12})?$",
        by="bootstrap",
    )
    backend: str = setting(
        "Where Pulumi keeps this stack's state. Without it, what PULUMI_BACKEND_URL or your "
        "`pulumi login` says.",
        "an address, such as s3://bucket?region=eu-central-1",
        pattern=r"^$|^[a-z0-9+]+://\S+$",
        by="bootstrap",
    )
    tags: dict[str, str] = setting(
        "Tags for every resource, beside Trainyard's own.", "a map of texts", default={}
    )

    # The account's stack
    github_repository: str = setting(
        "The repository whose workflows deploy. Without it the stack makes no roles for GitHub.",
        "owner/name",
        pattern=r"^$|^[\w.-]+/[\w.-]+$",
        by="bootstrap",
    )
    github_owner_id: str = setting(
        "The number of the repository's owner: part of the token's subject since July 2026.",
        "digits: `gh api repos/OWNER/NAME --jq .owner.id`",
        pattern=r"^\d*$",
        by="bootstrap",
    )
    github_repository_id: str = setting(
        "The repository's number.",
        "digits: `gh api repos/OWNER/NAME --jq .id`",
        pattern=r"^\d*$",
        by="bootstrap",
    )
    github_oidc_provider_arn: str = setting(
        "GitHub's identity provider, where the account has it already (there can be only one).",
        "the ARN of an IAM OIDC provider",
        pattern=r"^$|^arn:aws[a-z-]*:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com$",
    )
    deploy_environments: tuple[Environment, ...] = setting(
        "GitHub environments whose jobs may take the deploy role.",
        "names of GitHub environments",
        default=("dev", "prod"),
        min_length=1,
    )
    state_bucket: str = setting(
        "The bucket of Pulumi's state, which the roles for GitHub read and write.",
        "a bucket's name",
        pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        by="bootstrap",
    )
    state_key_arn: str = setting(
        "The KMS key that encrypts secrets in Pulumi's state.",
        "the ARN of a KMS key",
        pattern=r"^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+$",
        by="bootstrap",
    )

    # An environment
    profile: Literal["minimal", "standard", "ha"] = setting(
        "Sizes and durability: see infra/README.md.", default="minimal"
    )
    durable: bool = setting(
        "Data outlives mistakes: bucket, its key and database are protected; take a snapshot "
        "before you turn it off.",
        default=True,
    )
    cpu_architecture: Literal["x86_64", "arm64"] = setting(
        "Of tasks; the images have to match: `make publish CPU=arm64` (deploy.yml builds x86_64).",
        default="x86_64",
    )
    vpc_cidr: Annotated[str, AfterValidator(_network)] = setting(
        "Addresses of the VPC that the stack makes.",
        "a private IPv4 network of /16 to /22",
        default="10.20.0.0/16",
    )
    vpc_id: str = setting(
        "An existing VPC instead of one of the stack's own.",
        "the id of a VPC",
        pattern=r"^$|^vpc-[0-9a-f]+$",
    )
    subnet_ids: tuple[SubnetId, ...] = setting(
        "Where tasks run in that VPC.", "ids of at least two subnets", default=()
    )
    database_subnet_ids: tuple[SubnetId, ...] = setting(
        "Where the database lives in that VPC; without them, where tasks run.",
        "ids of at least two subnets",
        default=(),
    )
    assign_public_ip: bool = setting(
        "Tasks in those subnets get public addresses, as they must where no NAT leads out.",
        default=False,
    )
    interface_endpoints: bool = setting(
        "Private ways to AWS's services. Dearer than a NAT: for isolation or volume.", default=False
    )
    prefect: Literal["self-hosted", "cloud"] = setting(
        "Who runs Prefect's API: a server in this stack, or Prefect Cloud.", default="self-hosted"
    )
    prefect_api_url: str = setting(
        "Prefect Cloud's address of your workspace.",
        "a URL that ends in /api/accounts/.../workspaces/...",
        pattern=r"^$|^https?://\S+/api(/accounts/[\w-]+/workspaces/[\w-]+)?$",
    )
    prefect_api_key_secret_arn: str = setting(
        "The secret with Prefect Cloud's API key: `make bootstrap` makes it and fills this in.",
        "the ARN of a secret in Secrets Manager",
        pattern=rf"^$|^{SECRET_ARN}",
        by="bootstrap",
    )
    work_pool: str = setting(
        "The work pool's name; without it `trainyard-<stack>`.",
        "letters, digits, - and _",
        pattern=r"^[A-Za-z0-9_-]*$",
    )
    tracking_uri: str = setting(
        "An existing MLflow tracking server instead of one of the stack's own.",
        "a URL",
        pattern=r"^$|^https?://[^\s/]+(/\S*)?$",
    )
    source_prefixes: tuple[SourcePrefix, ...] = setting(
        "Where flows may read beside the stack's own bucket. The account's stack has to allow it.",
        "s3://bucket/prefix/, without *",
        default=(),
    )
    active_schedules: bool = setting(
        "prefect.yaml's schedules start runs; without, a flow runs when somebody asks.",
        default=True,
    )
    training_data: str = setting(
        "Where prefect.yaml's trainings get their months.",
        "synthetic, tlc, or an s3:// or https:// prefix",
        default="synthetic",
        pattern=r"^(synthetic|tlc|(s3|https)://\S+)$",
    )
    flow_secrets: dict[Variable, Secret] = setting(
        "Secrets of your flows: environment variable of every run -> the secret that holds it.",
        "a map of NAMES to ARNs of secrets in Secrets Manager",
        default={},
    )
    notify_webhook_secret_arn: str = setting(
        "The secret with the address of the webhook that hears of runs and models.",
        "the ARN of a secret in Secrets Manager",
        pattern=rf"^$|^{SECRET_ARN}",
    )
    image_account_id: str = setting(
        "The account whose registry holds the images; without it the stack's own.",
        "12 digits",
        pattern=r"^(\d{12})?$",
    )
    flow_image: str = setting(
        "What flow runs and the deployer start from. Without it, what `make release` has noted.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
        by="tool",
    )
    worker_image: str = setting(
        "Of the worker and the Prefect server: as flowImage. Without any they stay at 0.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
        by="tool",
    )
    mlflow_image: str = setting(
        "Of the tracking server: as flowImage.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
        by="tool",
    )
    database_class: str = setting(
        "Size of the database; without it the profile's.",
        "an RDS instance class",
        pattern=r"^$|^db\.[a-z0-9]+\.[a-z0-9]+$",
    )
    database_storage_gb: int = setting(
        "The database's disk. It can grow, never shrink.", default=20, ge=20, le=1000
    )
    database_password_version: int = setting(
        "Count it up and run `make up`: a new password, and services that know it.", default=1, ge=1
    )
    database_snapshot: str = setting(
        "What a new database starts from. A change replaces the database: see docs/operations.md.",
        "trainyard-...: a snapshot made by hand (automated ones are deleted with their database)",
        pattern=r"^$|^trainyard(-[a-z0-9]+)+$",
    )
    flows_database: bool = setting(
        "A PostgreSQL database of the flows' own on the stack's instance, which runs find by "
        "TRAINYARD_FLOWS_DATABASE: run `make up` and `make deploy`.",
        default=False,
    )
    server_password_version: int = setting(
        "Count it up and run `make up`: new passwords of MLflow's administrator, of the stack's "
        "Prefect server and of the flows' database.",
        default=1,
        ge=1,
    )
    serve: tuple[ServedModel, ...] = setting(
        "Models whose champions answer over HTTP in the VPC: see docs/operations.md.",
        "names of registered models, of a-z, 0-9 and -, each once",
        default=(),
    )
    serve_from_cidrs: tuple[PrivateCidr, ...] = setting(
        "Networks that reach served models. Without these and serveFromSecurityGroups nobody does.",
        "private IPv4 networks, such as 10.20.0.0/16",
        default=(),
    )
    serve_from_security_groups: tuple[SecurityGroupId, ...] = setting(
        "Security groups whose members reach served models; theirs has to let them out.",
        "ids of security groups",
        default=(),
    )
    serve_log_percent: int = setting(
        "Requests to served models that are logged with their answers in the artifact bucket.",
        default=100,
        ge=0,
        le=100,
    )
    serve_log_days: int = setting(
        "How long they stay there; monitoring reads a month when it is over.",
        default=180,
        ge=62,
        le=3650,
    )
    serve_max_tasks: int = setting(
        "Autoscaling adds tasks of a served model up to these, at 60 % of their CPU; 0 for none.",
        default=0,
        ge=0,
        le=50,
    )
    serve_domain: str = setting(
        "Served models answer HTTPS at <model>.<serveDomain>, behind a load balancer.",
        "a name in DNS, such as models.example.com",
        pattern=r"^$|^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
    )
    serve_certificate_arn: str = setting(
        "The certificate of *.<serveDomain>.",
        "the ARN of a certificate in ACM",
        pattern=r"^$|^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[\w-]+$",
    )
    log_days: Annotated[int, AfterValidator(_log_days)] = setting(
        "How long logs stay; 0 leaves it to the profile.",
        f"0 or one of {', '.join(map(str, LOG_RETENTION_DAYS))}",
        default=0,
    )
    alarm_emails: tuple[Email, ...] = setting(
        "Who hears of alarms and of the budget. AWS asks each to confirm.",
        "e-mail addresses",
        default=(),
    )
    monthly_budget_usd: int = setting(
        "AWS tells alarmEmails at 80 % of it spent and at 100 % foreseen, once the tag "
        "`trainyard-stack` is activated for cost allocation; 0 makes no budget.",
        default=100,
        ge=0,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _lists_and_maps_are_json(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if get_origin(kind) in (tuple, dict) and isinstance(value, str):
            with suppress(ValueError):
                return json.loads(value)
        return value

    # --- contradictions: a validator sees the settings above its own, if they are right ----------
    @field_validator("account_id")
    @classmethod
    def _account(cls, value: str, info: ValidationInfo) -> str:
        boundary = info.data.get("permissions_boundary")
        if value and boundary and boundary.split(":")[4] not in (value, "aws"):
            raise ContradictionError("the account of permissionsBoundary")
        return value

    @field_validator("github_owner_id", "github_repository_id")
    @classmethod
    def _number(cls, value: str, info: ValidationInfo) -> str:
        if bool(info.data.get("github_repository", value)) != bool(value):
            raise ContradictionError("given together with githubRepository")
        return value

    @field_validator("state_bucket")
    @classmethod
    def _state(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("github_repository") and not value:
            raise ContradictionError(
                "the state's bucket, because the roles for githubRepository need it"
            )
        return value

    @field_validator("subnet_ids", "database_subnet_ids")
    @classmethod
    def _subnets(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        vpc = info.data.get("vpc_id")
        if vpc == "" and value:
            raise ContradictionError("empty, because there is no vpcId")
        if vpc and len(value) < 2 and info.field_name == "subnet_ids":
            raise ContradictionError("at least two subnets of vpcId")
        if vpc and len(value) == 1:
            raise ContradictionError("none, or at least two subnets of vpcId")
        return value

    @field_validator("assign_public_ip", "interface_endpoints")
    @classmethod
    def _network_switch(cls, value: bool, info: ValidationInfo) -> bool:
        vpc, endpoints = info.data.get("vpc_id"), info.field_name == "interface_endpoints"
        if value and vpc == "" and not endpoints:
            raise ContradictionError("false: in a VPC of its own the stack knows")
        if value and vpc and endpoints:
            raise ContradictionError("false: endpoints of an existing VPC are its owner's")
        return value

    @field_validator("prefect_api_url", "prefect_api_key_secret_arn")
    @classmethod
    def _prefect_cloud(cls, value: str, info: ValidationInfo) -> str:
        prefect, url = info.data.get("prefect"), info.field_name == "prefect_api_url"
        if prefect == "cloud" and not value:
            what = "address of your workspace" if url else "ARN that `make bootstrap` prints"
            raise ContradictionError(f"the {what}, because prefect is cloud")
        if prefect == "self-hosted" and value:
            why = "'s own server has its own address" if url else " makes its own secret"
            raise ContradictionError(f"empty, because prefect is self-hosted: the stack{why}")
        return value

    @field_validator("mlflow_image")
    @classmethod
    def _mlflow(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("tracking_uri"):
            raise ContradictionError("empty, because trackingUri names another tracking server")
        return value

    @field_validator("flows_database")
    @classmethod
    def _one_database(cls, value: bool, info: ValidationInfo) -> bool:
        given = {"PGPASSWORD", FLOWS_DATABASE} & set(info.data.get("flow_secrets", {}))
        if value and given:
            names = " and ".join(sorted(given))
            raise ContradictionError(f"false, because flowSecrets gives runs {names} of yours")
        return value

    @field_validator("serve")
    @classmethod
    def _served(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ContradictionError("names of models, each once")
        if {"mlflow", "prefect"} & set(value):
            raise ContradictionError("other names: mlflow and prefect are the stack's own servers")
        room = SERVED_NAME - len(info.data.get("stack", ""))
        if any(len(name) > room for name in value):
            raise ContradictionError(
                f"names of at most {room} characters beside the stack's: roles are named by both"
            )
        return value

    @field_validator("serve_max_tasks")
    @classmethod
    def _served_tasks(cls, value: int, info: ValidationInfo) -> int:
        profile = PROFILES.get(info.data.get("profile", ""))
        if profile and 0 < value < profile.model_servers:
            raise ContradictionError(
                f"0, or at least {profile.model_servers}: a model has as many in this profile"
            )
        return value

    @field_validator("serve_certificate_arn")
    @classmethod
    def _served_domain(cls, value: str, info: ValidationInfo) -> str:
        if bool(info.data.get("serve_domain", value)) != bool(value):
            raise ContradictionError("given together with serveDomain")
        if value and value.split(":")[3] != info.data.get("region", value.split(":")[3]):
            raise ContradictionError("of a certificate in the stack's own region")
        return value

    @field_validator("prefect_api_key_secret_arn", "flow_secrets", "notify_webhook_secret_arn")
    @classmethod
    def _within_bounds(cls, value: str | dict[str, str], info: ValidationInfo) -> Any:
        arns = [value] if isinstance(value, str) else value.values()
        foreign = any(arn and ":secret:trainyard-" not in arn for arn in arns)
        if foreign and info.data.get("permissions_boundary") == "":
            raise ContradictionError(
                "of a secret named trainyard-...: the boundary lets tasks read no other"
            )
        return value

    @property
    def sizes(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def log_retention_days(self) -> int:
        return self.log_days or self.sizes.log_days

    def with_images(self, **released: str) -> Self:
        """With a release's images, where the settings name none themselves."""
        fields = {f"{name}_image": image for name, image in released.items()}
        given = {field: image for field, image in fields.items() if not getattr(self, field)}
        return self.model_copy(update=given)

    @property
    def work_pool_name(self) -> str:
        return self.work_pool or f"{PROJECT}-{self.stack}"
