"""TrackingServer: MLflow on Fargate, on the stack's database and bucket. Private, and it asks for a
password.
"""

from dataclasses import dataclass

import pulumi
from pulumi import Input, ResourceOptions

from infra import iam
from infra.components.artifact_store import MLFLOW, ArtifactStore
from infra.components.database import PORT as DATABASE_PORT
from infra.components.database import USER as DATABASE_USER
from infra.components.database import Database
from infra.components.fargate import Container, Platform, Service, ServiceArgs, Size, Task, TaskArgs
from infra.components.network import Placement
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs

PORT = 5000
ADMIN = "admin"
DNS_NAME = "mlflow"


@dataclass(frozen=True)
class TrackingServerArgs:
    """Arguments of TrackingServer."""

    platform: Platform
    placement: Placement
    cluster_arn: Input[str]
    namespace_id: Input[str] | None
    namespace: str
    image: str
    count: int
    spot: bool
    database: Database
    store: ArtifactStore
    durable: bool
    log_group: str
    migration_log_group: str


class TrackingServer(pulumi.ComponentResource):
    """MLflow's server as a service, and its schema migration as a task of its own."""

    uri: str
    admin: GeneratedSecret
    service: Service
    migration: Task

    def __init__(self, name: str, args: TrackingServerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:mlflow:TrackingServer", name, None, opts)
        inside = ResourceOptions(parent=self)
        host = f"{DNS_NAME}.{args.namespace}"
        self.uri = f"http://{host}:{PORT}"
        self.admin = GeneratedSecret(
            f"{name}-admin",
            GeneratedSecretArgs(
                description="MLflow's administrator",
                fields={"username": ADMIN},
                # MLflow takes it at its first start; later it changes by MLflow's API.
                version=1,
                durable=args.durable,
            ),
            opts=inside,
        )
        session = GeneratedSecret(
            f"{name}-session",
            GeneratedSecretArgs(
                description="What MLflow signs its forms with",
                fields={},
                version=1,
                durable=False,
            ),
            opts=inside,
        )
        database: dict[str, Input[str]] = {
            # libpq's own names: no address with a password in it exists anywhere.
            "PGHOST": args.database.address,
            "PGPORT": str(DATABASE_PORT),
            "PGSSLMODE": "require",
            "PGUSER": DATABASE_USER,
        }
        rights = [*iam.use_prefix(args.store.arn, MLFLOW)]
        if args.store.key_arn is not None:
            rights.append(iam.use_key(args.store.key_arn))
        self.service = Service(
            name,
            ServiceArgs(
                task=TaskArgs(
                    platform=args.platform,
                    container_name="mlflow",
                    container=Container(
                        image=args.image,
                        command=(
                            *("mlflow", "server", "--host", "0.0.0.0"),  # noqa: S104 (its task's address)
                            *("--port", str(PORT), "--workers", "1", "--app-name", "basic-auth"),
                            *("--backend-store-uri", "postgresql+psycopg:///mlflow"),
                            "--artifacts-destination",
                            pulumi.Output.format("s3://{0}/{1}", args.store.bucket, MLFLOW[:-1]),
                        ),
                        environment={
                            **database,
                            "AWS_DEFAULT_REGION": args.platform.location.region,
                            "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
                            "MLFLOW_AUTH_CONFIG_PATH": "/app/docker/mlflow/basic_auth.ini",
                            # Any other name in a request's Host is refused, and the list replaces
                            # MLflow's own.
                            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
                                [host, f"{host}:*", "localhost:*", "127.0.0.1:*"]
                            ),
                            # Ten processes and a gigabyte that a tracking server has no use for.
                            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                        },
                        secrets={
                            "MLFLOW_AUTH_ADMIN_PASSWORD": self.admin.field("password"),
                            "MLFLOW_FLASK_SERVER_SECRET_KEY": session.field("password"),
                            "PGPASSWORD": args.database.password,
                        },
                        port=PORT,
                        health_path="/health",
                        slow_start_seconds=120,
                    ),
                    size=Size(256, 1024),
                    log_group=args.log_group,
                    rights=rights,
                ),
                cluster_arn=args.cluster_arn,
                placement=args.placement,
                count=args.count,
                spot=args.spot,
                what="MLflow tracking server",
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
                    command=("python", "-m", "infra.migrate", "mlflow"),
                    environment={**database, "HOME": "/tmp"},  # noqa: S108
                    secrets={"PGPASSWORD": args.database.password},
                ),
                size=Size(256, 1024),
                log_group=args.migration_log_group,
            ),
            opts=inside,
        )
        # The migration runs with the service's own security group.
        args.database.let_in(f"{name}-database", self.service.security_group_id, inside)
        self.register_outputs({"uri": self.uri})
