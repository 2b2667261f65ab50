"""PrefectServer: Prefect's API, page and services on Fargate, for stacks without Prefect Cloud.
Private.
"""

from dataclasses import dataclass

import pulumi
from pulumi import Input, ResourceOptions

from infra.components.database import PORT as DATABASE_PORT
from infra.components.database import USER as DATABASE_USER
from infra.components.database import Database
from infra.components.fargate import Container, Platform, Service, ServiceArgs, Size, Task, TaskArgs
from infra.components.network import Placement
from infra.components.prefect_api import AUTH_STRING, PrefectApi
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs

PORT = 4200
DNS_NAME = "prefect"


@dataclass(frozen=True)
class PrefectServerArgs:
    """Arguments of PrefectServer."""

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
    log_group: str
    migration_log_group: str


class PrefectServer(pulumi.ComponentResource):
    """One task with server and services: enough without Redis. Its schema migration is a task of
    its own.
    """

    api: PrefectApi
    auth: GeneratedSecret
    service: Service
    migration: Task

    def __init__(self, name: str, args: PrefectServerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:prefect:PrefectServer", name, None, opts)
        inside = ResourceOptions(parent=self)
        self.auth = GeneratedSecret(
            f"{name}-auth",
            GeneratedSecretArgs(
                description="What opens Prefect's API",
                fields={"username": "trainyard"},
                derived={"auth": "{username}:{password}"},
                version=1,
                durable=args.durable,
            ),
            opts=inside,
        )
        self.api = PrefectApi(
            url=f"http://{DNS_NAME}.{args.namespace}:{PORT}/api",
            secret=self.auth.field("auth"),
            secret_variable=AUTH_STRING,
        )
        environment: dict[str, Input[str]] = {
            "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
            # libpq's names, which asyncpg reads: no address with a password in it exists.
            "PGHOST": args.database.address,
            "PGPORT": str(DATABASE_PORT),
            "PGSSLMODE": "require",
            "PGUSER": DATABASE_USER,
            "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg:///prefect",
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
        }
        password = {"PGPASSWORD": args.database.password}
        self.service = Service(
            name,
            ServiceArgs(
                task=TaskArgs(
                    platform=args.platform,
                    container_name="prefect-server",
                    container=Container(
                        image=args.image,
                        command=(
                            *("prefect", "server", "start"),
                            *("--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 (its task's address)
                        ),
                        environment={
                            **environment,
                            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                            # Prefect copies its pages before it serves them.
                            "PREFECT_SERVER_UI_STATIC_DIRECTORY": "/tmp/prefect-ui",  # noqa: S108
                            # They are looked at through `make ui`'s tunnel.
                            "PREFECT_SERVER_UI_API_URL": f"http://localhost:{PORT}/api",
                        },
                        secrets={
                            **password,
                            "PREFECT_SERVER_API_AUTH_STRING": self.auth.field("auth"),
                        },
                        port=PORT,
                        health_path="/api/health",
                        slow_start_seconds=120,
                    ),
                    size=Size(512, 1024),
                    log_group=args.log_group,
                ),
                cluster_arn=args.cluster_arn,
                placement=args.placement,
                count=args.count,
                spot=args.spot,
                what="Prefect server",
                namespace_id=args.namespace_id,
                dns_name=DNS_NAME,
            ),
            opts=inside,
        )
        self.migration = Task(
            f"{name}-migrate",
            TaskArgs(
                platform=args.platform,
                container_name="migrate",
                container=Container(
                    image=args.image,
                    command=("python", "-m", "infra.migrate", "prefect"),
                    environment=environment,
                    secrets=password,
                ),
                size=Size(256, 1024),
                log_group=args.migration_log_group,
            ),
            opts=inside,
        )
        args.database.let_in(f"{name}-database", self.service.security_group_id, inside)
        self.register_outputs({"url": self.api.url})
