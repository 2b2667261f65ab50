"""StackOutputs: what every stack hands to `register` and `prefect deploy`, whatever made it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

# The variable by which runs find the flows' own database.
FLOWS_DATABASE = "TRAINYARD_FLOWS_DATABASE"
# The variable with the share of requests, 0 to 1, that a served model logs.
SERVE_LOG = "TRAINYARD_SERVE_LOG"
# The variable that tells `register` who hears of runs that die: the address of a webhook that takes
# JSON as Slack does. It is a secret.
WEBHOOK = "TRAINYARD_NOTIFY_WEBHOOK"


class ProcessWorkPool(BaseModel, frozen=True, extra="forbid"):
    """A work pool whose worker starts each run as a process of its own machine."""

    type: Literal["process"] = "process"
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")


class DockerWorkPool(BaseModel, frozen=True, extra="forbid"):
    """A work pool whose worker starts each run as a container of its own machine."""

    type: Literal["docker"] = "docker"
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")
    host_network: bool
    """Containers use the machine's own network, as only Linux can; elsewhere it has another name
    in them than on itself.
    """
    user: str
    """Who a run is, as `uid:gid`: the owner of the artifact store."""


class EcsWorkPool(BaseModel, frozen=True, extra="forbid"):
    """A work pool whose worker starts each run as a Fargate task."""

    type: Literal["ecs"] = "ecs"
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")
    region: str
    cluster_arn: str
    vpc_id: str
    subnet_ids: tuple[str, ...] = Field(min_length=1)
    security_group_ids: tuple[str, ...] = Field(min_length=1)
    assign_public_ip: bool
    """Runs live in public subnets: without an address of their own they reach nothing."""
    capacity_provider: Literal["FARGATE", "FARGATE_SPOT"]
    cpu_architecture: Literal["X86_64", "ARM64"]
    execution_role_arn: str
    """What ECS starts a run with: its image, its log, its secrets."""
    task_role_arn: str
    """What the run itself may do."""
    log_group: str
    queue_name: str
    """Where ECS says how runs' tasks fare; the worker's observer reads it."""
    environment: dict[str, str]
    """What every run's container is told, beside what `register` derives from the stack."""
    secrets: dict[str, str]
    """Variable -> where ECS reads its value (`valueFrom`). The value is nowhere else."""
    api_secret_variable: Literal["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"]
    api_secret: str
    """Where ECS reads what opens Prefect's API (`valueFrom`)."""


WorkPool = Annotated[ProcessWorkPool | DockerWorkPool | EcsWorkPool, Field(discriminator="type")]


class StackOutputs(BaseModel, frozen=True, extra="forbid"):
    """The one contract between infrastructure and flows.

    The laptop stack writes it as JSON to `.trainyard/outputs.json`. A stack on AWS exports it as
    `trainyard` and keeps the same document in a parameter of Systems Manager.
    """

    stack: str
    prefect_api_url: str
    tracking_uri: str
    """MLflow's tracking server."""
    artifact_store: str = Field(pattern="^(/|s3://)")
    """A folder's absolute path, or `s3://bucket/prefix`."""
    code_dir: str
    """Where a run finds the repository's code: the clone on a laptop, `/app` in an image."""
    work_pool: WorkPool
    active_schedules: bool = True
    """Whether prefect.yaml's schedules start runs here."""
    training_data: str = "synthetic"
    """Where prefect.yaml's trainings get their months."""
    notify_webhook_secret: str = ""
    """The ARN of the secret with the address of the webhook that is told of runs and models."""


# What prefect.yaml's templates may use: these and no others. Prefect puts texts in their places.
DEPLOY_VARIABLES = (
    "TRAINYARD_ACTIVE_SCHEDULES",
    "TRAINYARD_CODE_DIR",
    "TRAINYARD_DATA",
    "TRAINYARD_IMAGE",
    "TRAINYARD_WORK_POOL",
)


def deploy_environment(outputs: StackOutputs, image: str) -> dict[str, str]:
    """DEPLOY_VARIABLES for a stack; a run's container is started from `image` (a digest)."""
    active = str(outputs.active_schedules).lower()
    values = (active, outputs.code_dir, outputs.training_data, image, outputs.work_pool.name)
    return dict(zip(DEPLOY_VARIABLES, values, strict=True))
