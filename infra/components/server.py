"""A server of the stack's own, on its database: what MLflow's and Prefect's have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pulumi import Input, ResourceOptions

from infra.components import iam
from infra.components.database import PORT, USER, Database
from infra.components.fargate import Container, Platform, Service, ServiceArgs, Task, TaskArgs
from infra.components.network import Placement
from infra.components.secret import SecretField
from trainyard.contract.fargate_sizes import Size


@dataclass(frozen=True)
class ServerArgs:
    """What every server is told."""

    platform: Platform
    placement: Placement
    cluster_arn: Input[str]
    namespace_id: Input[str] | None
    namespace: str
    image: str
    count: int
    spot: bool
    database: Database
    durable: bool
    password_version: int
    """Of the password that opens this server."""
    log_group: str
    migration_log_group: str


def serve(
    name: str,
    args: ServerArgs,
    inside: ResourceOptions,
    *,
    what: str,
    dns_name: str,
    container_name: str,
    container: Container,
    size: Size,
    migrating: Mapping[str, Input[str]],
    migrating_with: Mapping[str, SecretField] | None = None,
    rights: Sequence[iam.Statement] = (),
) -> tuple[Service, Task]:
    """A service under its private name, and its schema's migration as a task of its own.

    `migrating` are the migration's variables, which the service has too; `migrating_with` are its
    secrets beside the database's.
    """
    environment = {**database_variables(args.database), **migrating}
    password = {"PGPASSWORD": args.database.password}
    own = replace(
        container,
        environment={**environment, **container.environment},
        secrets={**password, **container.secrets},
    )
    service = Service(
        name,
        ServiceArgs(
            task=TaskArgs(args.platform, container_name, own, size, args.log_group, rights),
            cluster_arn=args.cluster_arn,
            placement=args.placement,
            count=args.count,
            spot=args.spot,
            what=what,
            namespace_id=args.namespace_id,
            dns_name=dns_name,
        ),
        opts=inside,
    )
    migrate = Container(
        image=args.image,
        command=("python", "-m", "trainyard.prefect.migrate", dns_name),
        environment=environment,
        secrets={**password, **(migrating_with or {})},
    )
    migration = Task(
        f"{name}-migrate",
        TaskArgs(
            args.platform, "migrate", migrate, Size(256, 1024), log_group=args.migration_log_group
        ),
        opts=inside,
    )
    # The migration runs with the service's own security group.
    args.database.let_in(f"{name}-database", service.security_group_id, inside)
    return service, migration


def database_variables(database: Database) -> dict[str, Input[str]]:
    """Where the database is, for its administrator."""
    # libpq's own names: no address with a password in it exists anywhere.
    return {
        "PGHOST": database.address,
        "PGPORT": str(PORT),
        "PGSSLMODE": "require",
        "PGUSER": USER,
    }
