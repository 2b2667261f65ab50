"""What the parts of an environment are made with: settings, names, network, and what may run."""

from dataclasses import dataclass

from pulumi import ResourceOptions

from infra.components.fargate import Platform
from infra.components.network import Network, NetworkArgs, Placement
from infra.settings import Settings
from trainyard.contract.naming import Location, Names
from trainyard.contract.readiness import A_DATABASE, Ready, Servers, ready


@dataclass(frozen=True)
class AwsContext:
    """What is there before the stack, looked up once."""

    location: Location
    boundary: str
    """The policy that bounds every role of the stack."""
    zones: tuple[str, ...]
    """Names of the region's availability zones."""
    noted: dict[str, object]
    """What `make up` has done to this stack (trainyard/contract/readiness.py)."""


@dataclass(frozen=True)
class Site:
    """What every part of a stack is made with."""

    settings: Settings
    names: Names
    location: Location
    platform: Platform
    placement: Placement
    may_run: Ready
    models_may_run: bool
    """MLflow has been there once: a model's server waits for it, and goes on while it is away."""
    opts: ResourceOptions


def own_tracking(settings: Settings) -> bool:
    """Whether the stack runs MLflow itself."""
    return not settings.tracking_uri


def own_prefect(settings: Settings) -> bool:
    """Whether the stack runs Prefect's server itself."""
    return settings.prefect == "self-hosted"


def needs_database(settings: Settings) -> bool:
    """Whether anything in the stack keeps its data in PostgreSQL."""
    return own_tracking(settings) or own_prefect(settings) or settings.flows_database


def servers_of(settings: Settings) -> Servers:
    """The servers that this stack runs itself."""
    return Servers(
        mlflow=settings.mlflow_image if own_tracking(settings) else "",
        prefect=settings.worker_image if own_prefect(settings) else "",
        flows=A_DATABASE if settings.flows_database else "",
        contents=" ".join(
            f"{name} {value}"
            for name, value, default in (
                ("snapshot", settings.database_snapshot, ""),
                ("passwords", settings.server_password_version, 1),
            )
            if value != default
        ),
    )


def prepare(settings: Settings, context: AwsContext, opts: ResourceOptions) -> Site:
    """Gather what every part is made with; the network is made for it."""
    names = Names(settings.stack)
    return Site(
        settings=settings,
        names=names,
        location=context.location,
        platform=Platform(
            location=context.location,
            architecture=settings.cpu_architecture,
            log_days=settings.log_retention_days,
            permissions_boundary=context.boundary,
            image_account=settings.image_account_id,
        ),
        placement=place(settings, context, names, opts),
        may_run=ready(context.noted, servers_of(settings), worker_image=settings.worker_image),
        models_may_run=bool(settings.flow_image)
        and (not own_tracking(settings) or bool(context.noted.get("mlflow"))),
        opts=opts,
    )


def place(
    settings: Settings, context: AwsContext, names: Names, opts: ResourceOptions
) -> Placement:
    """The network: the stack's own, or the one that the settings name."""
    sizes = settings.sizes
    if settings.vpc_id:
        return Placement(
            vpc_id=settings.vpc_id,
            task_subnet_ids=settings.subnet_ids,
            database_subnet_ids=settings.database_subnet_ids or settings.subnet_ids,
            public_addresses=settings.assign_public_ip,
        )
    return Network(
        names("network"),
        NetworkArgs(
            location=context.location,
            cidr=settings.vpc_cidr,
            zones=context.zones[: sizes.zones],
            nat_gateways=sizes.nat_gateways,
            interface_endpoints=settings.interface_endpoints,
            flow_log_group=names.log_group("network"),
            flow_log_days=settings.log_retention_days if sizes.flow_logs else None,
            permissions_boundary=context.boundary,
        ),
        opts,
    ).placement
