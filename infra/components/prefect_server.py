"""PrefectServer: Prefect's API, page and services on Fargate, for stacks without Prefect Cloud.
Private.
"""

import pulumi
from pulumi import Input, ResourceOptions

from infra.components.fargate import Container, Service, Task
from infra.components.prefect_api import AUTH_STRING, PrefectApi
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs
from infra.components.server import ServerArgs, serve
from trainyard.contract.fargate_sizes import Size

PORT = 4200
# How the server keeps leases: a module of its image.
LEASE_STORAGE = "trainyard.prefect.patches.lease_storage"
DNS_NAME = "prefect"
SETTINGS: dict[str, Input[str]] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASE_STORAGE,
    # Many runs that start at once keep a small database busy, and Prefect answers
    # its own time-outs (5 and 10 s) with 500. Clients wait for 30 s.
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "20",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "20",
    # How often a run that waits for another of its deployment looks again; 30 s is
    # Prefect's own.
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
    # Prefect copies its pages before it serves them.
    "PREFECT_SERVER_UI_STATIC_DIRECTORY": "/tmp/prefect-ui",  # noqa: S108
    # They are looked at through `make ui`'s tunnel.
    "PREFECT_SERVER_UI_API_URL": f"http://localhost:{PORT}/api",
}


class PrefectServer(pulumi.ComponentResource):
    """Create Prefect's API, pages and background services as one service, without Redis.

    Its password and its schema migration, a task of its own, come with it.

    Inputs: `image`, the worker's; `database`; `namespace`, the zone in which it is `prefect`;
    `count` is 0 until its schema is migrated; `password_version`, incremented to rotate.
    Outputs: `api`, its address and what opens it; `auth`, `service`, `migration`.
    Idle cost: 9.64 $ a month with `minimal`, 18.42 with `standard` and `ha`.
    """

    api: PrefectApi
    auth: GeneratedSecret
    service: Service
    migration: Task

    def __init__(self, name: str, args: ServerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:prefect:PrefectServer", name, None, opts)
        inside = ResourceOptions(parent=self)
        self.auth = GeneratedSecret(
            f"{name}-auth",
            GeneratedSecretArgs(
                description="What opens Prefect's API",
                fields={"username": "trainyard"},
                derived={"auth": "{username}:{password}"},
                version=args.password_version,
                durable=args.durable,
            ),
            opts=inside,
        )
        self.api = PrefectApi(
            url=f"http://{DNS_NAME}.{args.namespace}:{PORT}/api",
            secret=self.auth.field("auth"),
            secret_variable=AUTH_STRING,
        )
        self.service, self.migration = serve(
            name,
            args,
            inside,
            what="Prefect server",
            dns_name=DNS_NAME,
            container_name="prefect-server",
            container=Container(
                image=args.image,
                command=(
                    *("prefect", "server", "start"),
                    *("--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 (its task's address)
                ),
                environment=SETTINGS,
                secrets={"PREFECT_SERVER_API_AUTH_STRING": self.auth.field("auth")},
                port=PORT,
                health_path="/api/health",
                slow_start_seconds=120,
            ),
            size=Size(512, 1024),
            migrating={
                "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
                # asyncpg reads libpq's names.
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg:///prefect",
                "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            },
        )
        self.register_outputs({"url": self.api.url})
