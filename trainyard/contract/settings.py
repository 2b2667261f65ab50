"""A stack's settings: `Pulumi.<stack>.yaml` parsed once into one frozen, typed object.

All that is wrong with a file is reported together: the key, its value, and what is allowed.
An owner's own settings extend these: infra/settings.py.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from trainyard.paths import PROGRAM

PROJECT = "trainyard"

DIGEST = r"^$|^([\w.:/-]+@)?sha256:[0-9a-f]{64}$"
SECRET_ARN = r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+$"  # noqa: S105
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 180, 365, 400, 545, 731)


@dataclass(frozen=True)
class Profile:
    """What a profile decides: sizes, and how much can fail before a user notices."""

    zones: int
    nat_gateways: int
    """None: tasks live in public subnets, with an address each and no way in."""
    spot: bool
    """Services run on Fargate Spot too: a third of the price, restarted when AWS wants the machine.
    """
    workers: int
    database_class: str
    database_standby: bool
    backup_days: int
    container_insights: bool
    customer_key: bool
    """The artifact store has a KMS key of its own, with its own policy and audit trail (1 $ a
    month).
    """
    flow_logs: bool
    access_logs: bool
    log_days: int


PROFILES: Mapping[str, Profile] = {
    "minimal": Profile(
        zones=2,
        nat_gateways=0,
        spot=True,
        workers=1,
        database_class="db.t4g.micro",
        database_standby=False,
        backup_days=7,
        container_insights=False,
        customer_key=False,
        flow_logs=False,
        access_logs=False,
        log_days=30,
    ),
    "standard": Profile(
        zones=2,
        nat_gateways=1,
        spot=False,
        workers=1,
        database_class="db.t4g.small",
        database_standby=False,
        backup_days=14,
        container_insights=True,
        customer_key=True,
        flow_logs=True,
        access_logs=True,
        log_days=90,
    ),
    "ha": Profile(
        zones=3,
        nat_gateways=3,
        spot=False,
        workers=2,
        database_class="db.t4g.medium",
        database_standby=True,
        backup_days=30,
        container_insights=True,
        customer_key=True,
        flow_logs=True,
        access_logs=True,
        log_days=365,
    ),
}


def _network(value: str) -> str:
    network = IPv4Network(value)
    if not 16 <= network.prefixlen <= 22 or not network.is_private:
        raise ValueError("not a private network of a fitting size")
    return value


def _log_days(value: int) -> int:
    if value not in (0, *LOG_RETENTION_DAYS):
        raise ValueError("not a retention that CloudWatch knows")
    return value


Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
SourcePrefix = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^*?]*$")]
SubnetId = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Secret = Annotated[str, Field(pattern=f"^{SECRET_ARN}")]
Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


def setting(default: Any, description: str, allowed: str, **constraints: Any) -> Any:
    """Declare a setting: its default, what it does, and what it may be."""
    return Field(
        default, description=description, json_schema_extra={"allowed": allowed}, **constraints
    )


class Settings(BaseModel):
    """What a stack is told. Empty text and empty lists mean "not given"."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    stack: str = setting(
        ...,
        "Its name.",
        "2 to 12 of a-z, 0-9 and -, a letter first: names of AWS resources are built from it",
        pattern=r"^[a-z][a-z0-9-]{0,10}[a-z0-9]$",
    )
    region: str = setting(
        ..., "Where it is.", "a region, such as eu-central-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$"
    )

    # Every stack
    kind: Literal["environment", "account"] = setting(
        "environment",
        "What this stack holds: an environment, or what an AWS account has once (images, roles).",
        "environment or account",
    )
    account_id: str = setting(
        "",
        "The AWS account that this stack belongs to: credentials of another one are refused.",
        "12 digits",
        pattern=r"^(\d{12})?$",
    )
    permissions_boundary: str = setting(
        "",
        "A policy of yours to bound every role, in place of `trainyard-boundary`; in every stack.",
        "the ARN of an IAM policy",
        pattern=r"^$|" + r"^arn:aws[a-z-]*:iam::(\d{12}|aws):policy/[\w+=,.@/-]+$",
    )
    tags: dict[str, str] = setting(
        {}, "Tags for every resource, beside Trainyard's own.", "a map of texts"
    )

    # The account's stack
    github_repository: str = setting(
        "",
        "The repository whose workflows deploy. Without it the stack makes no roles for GitHub.",
        "owner/name",
        pattern=r"^$|^[\w.-]+/[\w.-]+$",
    )
    github_owner_id: str = setting(
        "",
        "The number of the repository's owner: part of the token's subject since July 2026.",
        "digits: `gh api repos/OWNER/NAME --jq .owner.id`",
        pattern=r"^\d*$",
    )
    github_repository_id: str = setting(
        "",
        "The repository's number.",
        "digits: `gh api repos/OWNER/NAME --jq .id`",
        pattern=r"^\d*$",
    )
    github_oidc_provider_arn: str = setting(
        "",
        "GitHub's identity provider, where the account has it already (there can be only one).",
        "the ARN of an IAM OIDC provider",
        pattern=r"^$|^arn:aws[a-z-]*:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com$",
    )
    deploy_environments: tuple[Environment, ...] = setting(
        ("dev", "prod"),
        "GitHub environments whose jobs may take the deploy role.",
        "names of GitHub environments",
        min_length=1,
    )
    state_bucket: str = setting(
        "",
        "The bucket of Pulumi's state, which the roles for GitHub read and write.",
        "a bucket's name",
        pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    state_key_arn: str = setting(
        "",
        "The KMS key that encrypts secrets in Pulumi's state.",
        "the ARN of a KMS key",
        pattern=r"^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+$",
    )

    # An environment
    profile: Literal["minimal", "standard", "ha"] = setting(
        "minimal", "Sizes and durability: see infra/README.md.", "minimal, standard or ha"
    )
    durable: bool = setting(
        True,
        "Data outlives mistakes: bucket, its key and database are protected; take a snapshot "
        "before you turn it off.",
        "true or false",
    )
    cpu_architecture: Literal["x86_64", "arm64"] = setting(
        "x86_64",
        "Of tasks; the images have to match: `make publish CPU=arm64` (deploy.yml builds x86_64).",
        "x86_64 or arm64",
    )
    vpc_cidr: Annotated[str, AfterValidator(_network)] = setting(
        "10.20.0.0/16",
        "Addresses of the VPC that the stack makes.",
        "a private IPv4 network of /16 to /22",
    )
    vpc_id: str = setting(
        "",
        "An existing VPC instead of one of the stack's own.",
        "the id of a VPC",
        pattern=r"^$|^vpc-[0-9a-f]+$",
    )
    subnet_ids: tuple[SubnetId, ...] = setting(
        (), "Where tasks run in that VPC.", "ids of at least two subnets"
    )
    database_subnet_ids: tuple[SubnetId, ...] = setting(
        (),
        "Where the database lives in that VPC; without them, where tasks run.",
        "ids of at least two subnets",
    )
    assign_public_ip: bool = setting(
        False,
        "Tasks in those subnets get public addresses, as they must where no NAT leads out.",
        "true or false",
    )
    interface_endpoints: bool = setting(
        False,
        "Private ways to AWS's services. Dearer than a NAT: for isolation or volume.",
        "true or false",
    )
    prefect: Literal["self-hosted", "cloud"] = setting(
        "self-hosted",
        "Who runs Prefect's API: a server in this stack, or Prefect Cloud.",
        "self-hosted or cloud",
    )
    prefect_api_url: str = setting(
        "",
        "Prefect Cloud's address of your workspace.",
        "a URL that ends in /api/accounts/.../workspaces/...",
        pattern=r"^$|^https?://\S+/api(/accounts/[\w-]+/workspaces/[\w-]+)?$",
    )
    prefect_api_key_secret_arn: str = setting(
        "",
        "The secret with Prefect Cloud's API key: `make bootstrap` makes it and fills this in.",
        "the ARN of a secret in Secrets Manager",
        pattern=rf"^$|^{SECRET_ARN}",
    )
    work_pool: str = setting(
        "",
        "The work pool's name; without it `trainyard-<stack>`.",
        "letters, digits, - and _",
        pattern=r"^[A-Za-z0-9_-]*$",
    )
    tracking_uri: str = setting(
        "",
        "An existing MLflow tracking server instead of one of the stack's own.",
        "a URL",
        pattern=r"^$|^https?://[^\s/]+(/\S*)?$",
    )
    source_prefixes: tuple[SourcePrefix, ...] = setting(
        (),
        "Where flows may read beside the stack's own bucket. The account's stack has to allow it.",
        "s3://bucket/prefix/, without *",
    )
    active_schedules: bool = setting(
        True,
        "prefect.yaml's schedules start runs; without, a flow runs when somebody asks.",
        "true or false",
    )
    training_data: str = setting(
        "synthetic",
        "Where prefect.yaml's trainings get their months.",
        "synthetic, tlc, or an s3:// or https:// prefix",
        pattern=r"^(synthetic|tlc|(s3|https)://\S+)$",
    )
    flow_secrets: dict[Variable, Secret] = setting(
        {},
        "Secrets of your flows: environment variable of every run -> the secret that holds it.",
        "a map of NAMES to ARNs of secrets in Secrets Manager",
    )
    notify_webhook_secret_arn: str = setting(
        "",
        "The secret with the address of the webhook that hears of runs and models.",
        "the ARN of a secret in Secrets Manager",
        pattern=rf"^$|^{SECRET_ARN}",
    )
    image_account_id: str = setting(
        "",
        "The account whose registry holds the images; without it the stack's own.",
        "12 digits",
        pattern=r"^(\d{12})?$",
    )
    flow_image: str = setting(
        "",
        "What flow runs and the deployer start from. Without it, what `make release` has noted.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
    )
    worker_image: str = setting(
        "",
        "Of the worker and the Prefect server: as flowImage. Without any they stay at 0.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
    )
    mlflow_image: str = setting(
        "",
        "Of the tracking server: as flowImage.",
        "repository@sha256:..., or a local image's sha256:...",
        pattern=DIGEST,
    )
    database_class: str = setting(
        "",
        "Size of the database; without it the profile's.",
        "an RDS instance class",
        pattern=r"^$|^db\.[a-z0-9]+\.[a-z0-9]+$",
    )
    database_storage_gb: int = setting(
        20, "The database's disk. It can grow, never shrink.", "20 to 1000", ge=20, le=1000
    )
    database_password_version: int = setting(
        1,
        "Count it up and run `make up`: a new password, and services that know it.",
        "1 or more",
        ge=1,
    )
    database_snapshot: str = setting(
        "",
        "What a new database starts from. A change replaces the database: see docs/operations.md.",
        "trainyard-...: a snapshot made by hand (automated ones are deleted with their database)",
        pattern=r"^$|^trainyard(-[a-z0-9]+)+$",
    )
    server_password_version: int = setting(
        1,
        "Count it up and run `make up`: new passwords of MLflow's administrator and of the stack's "
        "Prefect server.",
        "1 or more",
        ge=1,
    )
    log_days: Annotated[int, AfterValidator(_log_days)] = setting(
        0,
        "How long logs stay; 0 leaves it to the profile.",
        f"0 or one of {', '.join(map(str, LOG_RETENTION_DAYS))}",
    )
    alarm_emails: tuple[Email, ...] = setting(
        (), "Who hears of alarms and of the budget. AWS asks each to confirm.", "e-mail addresses"
    )
    monthly_budget_usd: int = setting(
        100,
        "AWS tells alarmEmails at 80 % of it spent and at 100 % foreseen, once the tag "
        "`trainyard-stack` is activated for cost allocation; 0 makes no budget.",
        "0 or more",
        ge=0,
    )

    @property
    def sizes(self) -> Profile:
        """What the profile decides."""
        return PROFILES[self.profile]

    @property
    def log_retention_days(self) -> int:
        """How long every log of the stack stays."""
        return self.log_days or self.sizes.log_days

    def with_images(self, **released: str) -> Self:
        """With a release's images, where the settings name none themselves."""
        fields = {f"{name}_image": image for name, image in released.items()}
        given = {field: image for field, image in fields.items() if not getattr(self, field)}
        return self.model_copy(update=given)

    @property
    def work_pool_name(self) -> str:
        """The work pool's name in Prefect."""
        return self.work_pool or f"{PROJECT}-{self.stack}"


# --- contradictions -------------------------------------------------------------------------------
@dataclass(frozen=True)
class CrossFieldRule:
    """Settings that are each right and can't be together; reported at the first of the keys."""

    keys: tuple[str, ...]
    """In camelCase, as a stack's file has them."""
    holds: Callable[[Any], bool]
    """Of the settings: whether they contradict each other."""
    allowed: str


OUT_OF_BOUNDS = "of a secret named trainyard-...: the boundary lets tasks read no other"


def _out_of_bounds(settings: Settings, secrets: Iterable[str]) -> bool:
    own = ":secret:trainyard-"
    return not settings.permissions_boundary and any(own not in arn for arn in secrets if arn)


CROSS_FIELD_RULES: tuple[CrossFieldRule, ...] = (
    CrossFieldRule(
        ("prefectApiUrl", "prefect"),
        lambda s: s.prefect == "cloud" and not s.prefect_api_url,
        "the address of your workspace, because prefect is cloud",
    ),
    CrossFieldRule(
        ("prefectApiKeySecretArn", "prefect"),
        lambda s: s.prefect == "cloud" and not s.prefect_api_key_secret_arn,
        "the ARN that `make bootstrap` prints, because prefect is cloud",
    ),
    CrossFieldRule(
        ("prefectApiUrl", "prefect"),
        lambda s: s.prefect == "self-hosted" and bool(s.prefect_api_url),
        "empty, because prefect is self-hosted: the stack's own server has its own address",
    ),
    CrossFieldRule(
        ("prefectApiKeySecretArn", "prefect"),
        lambda s: s.prefect == "self-hosted" and bool(s.prefect_api_key_secret_arn),
        "empty, because prefect is self-hosted: the stack makes its own secret",
    ),
    CrossFieldRule(
        ("subnetIds", "vpcId"),
        lambda s: bool(s.vpc_id) and len(s.subnet_ids) < 2,
        "at least two subnets of vpcId",
    ),
    CrossFieldRule(
        ("databaseSubnetIds", "vpcId"),
        lambda s: bool(s.vpc_id) and len(s.database_subnet_ids) == 1,
        "none, or at least two subnets of vpcId",
    ),
    CrossFieldRule(
        ("subnetIds", "vpcId"),
        lambda s: not s.vpc_id and bool(s.subnet_ids),
        "empty, because there is no vpcId",
    ),
    CrossFieldRule(
        ("databaseSubnetIds", "vpcId"),
        lambda s: not s.vpc_id and bool(s.database_subnet_ids),
        "empty, because there is no vpcId",
    ),
    CrossFieldRule(
        ("assignPublicIp", "vpcId"),
        lambda s: not s.vpc_id and s.assign_public_ip,
        "false: in a VPC of its own the stack knows",
    ),
    CrossFieldRule(
        ("interfaceEndpoints", "vpcId"),
        lambda s: bool(s.vpc_id) and s.interface_endpoints,
        "false: endpoints of an existing VPC are its owner's",
    ),
    CrossFieldRule(
        ("mlflowImage", "trackingUri"),
        lambda s: bool(s.mlflow_image) and bool(s.tracking_uri),
        "empty, because trackingUri names another tracking server",
    ),
    CrossFieldRule(
        ("githubOwnerId", "githubRepository"),
        lambda s: bool(s.github_repository) != bool(s.github_owner_id),
        "given together with githubRepository",
    ),
    CrossFieldRule(
        ("githubRepositoryId", "githubRepository"),
        lambda s: bool(s.github_repository) != bool(s.github_repository_id),
        "given together with githubRepository",
    ),
    CrossFieldRule(
        ("stateBucket", "githubRepository"),
        lambda s: bool(s.github_repository) and not s.state_bucket,
        "the state's bucket, because the roles for githubRepository need it",
    ),
    CrossFieldRule(
        ("accountId", "permissionsBoundary"),
        lambda s: (
            bool(s.account_id)
            and bool(s.permissions_boundary)
            and s.permissions_boundary.split(":")[4] not in (s.account_id, "aws")
        ),
        "the account of permissionsBoundary",
    ),
    CrossFieldRule(
        ("prefectApiKeySecretArn", "permissionsBoundary"),
        lambda s: _out_of_bounds(s, [s.prefect_api_key_secret_arn]),
        OUT_OF_BOUNDS,
    ),
    CrossFieldRule(
        ("flowSecrets", "permissionsBoundary"),
        lambda s: _out_of_bounds(s, s.flow_secrets.values()),
        OUT_OF_BOUNDS,
    ),
    CrossFieldRule(
        ("notifyWebhookSecretArn", "permissionsBoundary"),
        lambda s: _out_of_bounds(s, [s.notify_webhook_secret_arn]),
        OUT_OF_BOUNDS,
    ),
)


# --- parsing --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings."""

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: should be {self.allowed}"


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings."""

    def __init__(self, stack: str, problems: list[Problem]):
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"Pulumi.{stack}.yaml can't be used:\n{lines}")


def config_of(stack: str) -> dict[str, Any]:
    """What a stack's file says, as it is: setting with its namespace -> value.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = PROGRAM / f"Pulumi.{stack}.yaml"
    if not path.exists():
        raise FileNotFoundError(f"there is no stack {stack}: {path} is missing")
    return read_config(path)


def read_config(path: Path) -> dict[str, Any]:
    """A stack's file, with the namespace that Pulumi gives to keys without one."""
    config = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
    return {k if ":" in k else f"{PROJECT}:{k}": v for k, v in config.items()}


def as_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings as Pulumi hands them over."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}


S = TypeVar("S", bound=Settings)


def parse(
    stack: str,
    config: Mapping[str, Any],
    model: type[S],
    rules: Iterable[CrossFieldRule] = CROSS_FIELD_RULES,
) -> S:
    """The settings of a stack, from all of its configuration as Pulumi hands it over.

    Args:
        stack: the stack's name.
        config: values by key, with its namespace (`trainyard:profile`, `aws:region`). Lists and
            maps come as JSON.
        model: Settings, or what extends it.
        rules: what must hold between settings.

    Raises:
        SettingsError: something is wrong with them; it has all of it.
    """
    problems: list[Problem] = []
    given: dict[str, Any] = {"stack": stack}
    for key, value in sorted(config.items()):
        namespace, _, name = key.partition(":")
        if namespace == PROJECT:
            given[name] = value
        elif key == "aws:region":
            given["region"] = value
        elif namespace == "aws":
            # The stack's provider is explicit, so it would never see this.
            problems.append(
                Problem(key, _shown(value), "left to the environment (AWS_PROFILE, ...)")
            )

    fields = {to_camel(name): field for name, field in model.model_fields.items()}
    problems += [
        Problem(
            _full(key),
            _shown(given.pop(key)),
            f"left out: it isn't a setting{_like(key, fields)}",
        )
        for key in sorted(given.keys() - fields.keys())
    ]
    broken = set()
    decoded = {key: _decoded(fields[key].annotation, value) for key, value in given.items()}
    try:
        settings = model.model_validate(decoded)
    except ValidationError as error:
        for fault in error.errors():
            key = to_camel(str(fault["loc"][0]))
            if key not in broken:
                broken.add(key)
                problems.append(Problem(_full(key), _shown(given.get(key)), allowed(fields[key])))
        # The rest can still be checked: broken settings take their defaults, and their rules are
        # skipped.
        sound = {key: value for key, value in decoded.items() if key not in broken}
        settings = model.model_validate({"stack": "unknown", "region": "us-east-1", **sound})
    for rule in rules:
        if broken.isdisjoint(rule.keys) and rule.holds(settings):
            key = rule.keys[0]
            problems.append(Problem(_full(key), _shown(given.get(key, "")), rule.allowed))
    if problems:
        raise SettingsError(stack, problems)
    return settings


def _full(key: str) -> str:
    if key == "stack":
        return "the stack's name"
    return "aws:region" if key == "region" else f"{PROJECT}:{key}"


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    extra = field.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) else ""


def _like(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    if value is None:
        return "(not set)"
    return value if isinstance(value, str) and value else json.dumps(value)


def _decoded(kind: Any, value: Any) -> Any:
    """Pulumi hands lists and maps over as JSON text."""
    if get_origin(kind) in (tuple, dict) and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


# --- as Pulumi.yaml declares them -----------------------------------------------------------------
def declared(model: type[Settings]) -> dict[str, dict[str, Any]]:
    """The settings as Pulumi.yaml declares them."""
    out = {}
    for name, field in model.model_fields.items():
        if name in ("stack", "region"):
            continue
        default = field.default
        entry: dict[str, Any] = {"type": _pulumi_type(field.annotation)}
        if entry["type"] == "array":
            entry["items"] = {"type": "string"}
            default = list(default)
        out[to_camel(name)] = {
            **entry,
            "description": f"{field.description} Allowed: {allowed(field)}.",
            "default": default,
        }
    return out


def _pulumi_type(kind: Any) -> str:
    types: dict[Any, str] = {
        bool: "boolean",
        dict: "object",
        int: "integer",
        Literal: "string",
        str: "string",
        tuple: "array",
    }
    found = types.get(get_origin(kind) or kind)
    if not found:
        raise TypeError(f"a setting is a str, bool, int, Literal, tuple or dict, and not {kind}")
    return found
