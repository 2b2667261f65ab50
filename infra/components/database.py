"""Database: PostgreSQL for the stack's servers. Encrypted, TLS only, reachable by who is let in,
one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.network import Placement, open_port
from infra.components.secret import GeneratedSecret, GeneratedSecretArgs, SecretField

PORT = 5432
USER = "trainyard"
FIRST_DATABASE = "mlflow"
LOGS = ("postgresql", "upgrade")


@dataclass(frozen=True)
class DatabaseArgs:
    """Arguments of Database."""

    placement: Placement
    instance_class: str
    storage_gb: int
    snapshot: str
    """What a new instance starts from; empty for an empty one."""
    standby: bool
    backup_days: int
    password_version: int
    durable: bool
    log_days: int


class Database(pulumi.ComponentResource):
    """Create one PostgreSQL instance, with its password, subnets, parameters and log groups.

    It is private, encrypted, TLS only, and grows its disk to five times `storage_gb`.

    Inputs: `placement`; `instance_class`, `storage_gb`, `standby` and `backup_days`; `snapshot` to
    start from; `password_version`, incremented to rotate; `durable` protects it.
    Outputs: `address`, `identifier`, `password` (a secret's field); `let_in` opens it to a group.
    Idle cost: 14.38 $ a month with `minimal`, 26.06 with `standard`, 99.90 with `ha`.
    """

    address: Output[str]
    identifier: Output[str]
    password: SecretField

    def __init__(self, name: str, args: DatabaseArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:database:Database", name, None, opts)
        inside = ResourceOptions(parent=self)
        secret = GeneratedSecret(
            f"{name}-password",
            GeneratedSecretArgs(
                description="The database's user",
                fields={"username": USER},
                version=args.password_version,
                durable=args.durable,
            ),
            opts=inside,
        )
        subnets = aws.rds.SubnetGroup(
            f"{name}-subnets", subnet_ids=list(args.placement.database_subnet_ids), opts=inside
        )
        self._group = aws.ec2.SecurityGroup(
            f"{name}-access",
            vpc_id=args.placement.vpc_id,
            description="The database: opened to services one by one",
            tags={"Name": f"{name}-access"},
            opts=inside,
        )
        parameters = aws.rds.ParameterGroup(
            f"{name}-parameters",
            family="postgres16",
            description="PostgreSQL that refuses connections without TLS",
            parameters=[
                {"name": "rds.force_ssl", "value": "1"},
                {"name": "log_min_duration_statement", "value": "1000"},
            ],
            opts=inside,
        )
        # RDS would make these groups itself, and keep their logs forever.
        logs = [
            aws.cloudwatch.LogGroup(
                f"{name}-{kind}-logs",
                name=f"/aws/rds/instance/{name}/{kind}",
                retention_in_days=args.log_days,
                opts=inside,
            )
            for kind in LOGS
        ]
        instance = self._instance(name, args, secret.password, subnets.name, parameters.name, logs)
        self.address, self.identifier = instance.address, instance.identifier
        self.password = secret.field("password")
        self.register_outputs({"address": self.address})

    def _instance(
        self,
        name: str,
        args: DatabaseArgs,
        password: Input[str],
        subnets: Input[str],
        parameters: Input[str],
        logs: Sequence[pulumi.Resource],
    ) -> aws.rds.Instance:
        return aws.rds.Instance(
            f"{name}-postgres",
            identifier=name,  # the log groups' names depend on it
            engine="postgres",
            engine_version="16",
            auto_minor_version_upgrade=True,
            instance_class=args.instance_class,
            allocated_storage=args.storage_gb,
            # A full disk stops every service; growing costs cents.
            max_allocated_storage=args.storage_gb * 5,
            storage_type="gp3",
            storage_encrypted=True,
            snapshot_identifier=args.snapshot or None,
            db_name=FIRST_DATABASE,
            username=USER,
            password=password,
            port=PORT,
            parameter_group_name=parameters,
            db_subnet_group_name=subnets,
            vpc_security_group_ids=[self._group.id],
            publicly_accessible=False,
            multi_az=args.standby,
            backup_retention_period=args.backup_days,
            backup_window="03:00-04:00",
            maintenance_window="sun:04:30-sun:05:30",
            copy_tags_to_snapshot=True,
            enabled_cloudwatch_logs_exports=list(LOGS),
            # Without it AWS charges for old versions on its own.
            engine_lifecycle_support="open-source-rds-extended-support-disabled",
            deletion_protection=args.durable,
            skip_final_snapshot=not args.durable,
            final_snapshot_identifier=f"{name}-final" if args.durable else None,
            delete_automated_backups=not args.durable,
            apply_immediately=True,  # a new password must not wait for Sunday
            opts=ResourceOptions(
                parent=self,
                protect=args.durable,
                depends_on=logs,
                delete_before_replace=True,  # the new one takes its name, and so its address
                # Another snapshot replaces the database, but one that is named no more doesn't.
                ignore_changes=[] if args.snapshot else ["snapshotIdentifier"],
            ),
        )

    def let_in(self, name: str, group: Input[str], opts: ResourceOptions) -> None:
        """Open the database to the members of a security group."""
        open_port(name, PORT, what="the database", source=group, target=self._group.id, opts=opts)
