"""TrackingServer: MLflow on Fargate, on the stack's database and bucket. Private, and it asks for a
password.
"""

from dataclasses import dataclass

import pulumi
from pulumi import ResourceOptions

from infra.components import iam
from infra.components.artifact_store import MLFLOW, ArtifactStore
from infra.components.fargate import Container, Service, Task
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs
from infra.components.server import ServerArgs, serve
from trainyard.contract.fargate_sizes import Size

PORT = 5000
ADMIN, ADMIN_PASSWORD = "admin", "MLFLOW_AUTH_ADMIN_PASSWORD"
DNS_NAME = "mlflow"


@dataclass(frozen=True)
class TrackingServerArgs:
    """Arguments of TrackingServer."""

    server: ServerArgs
    store: ArtifactStore


class TrackingServer(pulumi.ComponentResource):
    """Create MLflow's tracking server as a service, private and with a password.

    Its administrator's secret and its schema migration, a task of its own, come with it.

    Inputs: `store`, where it keeps artifacts; of `server` the `image`, the `database`, and `count`,
    which is 0 until its schema is migrated.
    Outputs: `uri`, `admin`, `service`, `migration`.
    Idle cost: 7.75 $ a month with `minimal`, 11.43 with `standard` and `ha`.
    """

    uri: str
    admin: GeneratedSecret
    service: Service
    migration: Task

    def __init__(self, name: str, args: TrackingServerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:mlflow:TrackingServer", name, None, opts)
        inside = ResourceOptions(parent=self)
        host = f"{DNS_NAME}.{args.server.namespace}"
        self.uri = f"http://{host}:{PORT}"
        self.admin = GeneratedSecret(
            f"{name}-admin",
            GeneratedSecretArgs(
                description="MLflow's administrator",
                fields={"username": ADMIN},
                version=args.server.password_version,
                durable=args.server.durable,
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
        rights = [*iam.use_prefix(args.store.arn, MLFLOW)]
        if args.store.key_arn is not None:
            rights.append(iam.use_key(args.store.key_arn))
        self.service, self.migration = serve(
            name,
            args.server,
            inside,
            what="MLflow tracking server",
            dns_name=DNS_NAME,
            container_name="mlflow",
            container=container(args, host, self.admin, session),
            size=Size(256, 1024),
            migrating={"HOME": "/tmp"},  # noqa: S108 (the one folder it may write)
            # MLflow itself takes it at its first start only.
            migrating_with={ADMIN_PASSWORD: self.admin.field("password")},
            rights=rights,
        )
        self.register_outputs({"uri": self.uri})


def container(
    args: TrackingServerArgs, host: str, admin: GeneratedSecret, session: GeneratedSecret
) -> Container:
    """MLflow's own; `host` is the name under which it may be asked."""
    return Container(
        image=args.server.image,
        command=(
            *("mlflow", "server", "--host", "0.0.0.0"),  # noqa: S104 (its task's address)
            *("--port", str(PORT), "--workers", "1", "--app-name", "basic-auth"),
            *("--backend-store-uri", "postgresql+psycopg:///mlflow"),
            "--artifacts-destination",
            pulumi.Output.format("s3://{0}/{1}", args.store.bucket, MLFLOW[:-1]),
        ),
        environment={
            "AWS_DEFAULT_REGION": args.server.platform.location.region,
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
            ADMIN_PASSWORD: admin.field("password"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": session.field("password"),
        },
        port=PORT,
        health_path="/health",
        slow_start_seconds=120,
    )
