"""FlowsDatabase: a database of the flows' own on the stack's PostgreSQL, and a user who reaches no
other.
"""

from dataclasses import dataclass

import pulumi
from pulumi import Input, ResourceOptions

from infra.components.database import Database
from infra.components.fargate import Container, Platform, Task, TaskArgs
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs, SecretField
from infra.components.server import database_variables
from trainyard.contract.fargate_sizes import Size
from trainyard.contract.outputs import FLOWS_DATABASE

NAME = "flows"  # of the database, and of its user


@dataclass(frozen=True)
class FlowsDatabaseArgs:
    """Arguments of FlowsDatabase."""

    platform: Platform
    image: str
    """What its migration starts from."""
    database: Database
    password_version: int
    durable: bool
    migration_log_group: str


class FlowsDatabase(pulumi.ComponentResource):
    """Create the secret of the flows' user, and the one-off task that makes user and database.

    Inputs: `database`, the instance; `password_version`, incremented to rotate.
    Outputs: `environment` and `secrets`, by which runs find it; `migration`.
    Idle cost: 0.40 $ a month, for the secret.
    """

    environment: dict[str, Input[str]]
    secrets: dict[str, SecretField]
    migration: Task

    def __init__(self, name: str, args: FlowsDatabaseArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:database:FlowsDatabase", name, None, opts)
        inside = ResourceOptions(parent=self)
        secret = GeneratedSecret(
            f"{name}-user",
            GeneratedSecretArgs(
                description="The user of the flows' own database",
                fields={"username": NAME},
                version=args.password_version,
                durable=args.durable,
            ),
            opts=inside,
        )
        address = pulumi.Output.format("postgresql://{0}@{1}/{0}", NAME, args.database.address)
        # asyncpg and psycopg read libpq's names: the address has no password in it.
        self.environment = {FLOWS_DATABASE: address, "PGSSLMODE": "require"}
        self.secrets = {"PGPASSWORD": secret.field("password")}
        self.migration = Task(
            f"{name}-migrate",
            TaskArgs(
                args.platform,
                "migrate",
                Container(
                    image=args.image,
                    command=("python", "-m", "trainyard.prefect.migrate", NAME),
                    environment=database_variables(args.database),
                    secrets={
                        "PGPASSWORD": args.database.password,
                        "FLOWS_PASSWORD": secret.field("password"),
                    },
                ),
                Size(256, 512),
                log_group=args.migration_log_group,
            ),
            opts=inside,
        )
        self.register_outputs({})
