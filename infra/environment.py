"""An environment's stack: everything but what an account has once. Read it as the list of what
there is.
"""

from dataclasses import asdict, dataclass

import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.artifact_store import FLOWS, ArtifactStore, ArtifactStoreArgs
from infra.components.budget import Budget, BudgetArgs
from infra.components.cluster import Cluster, ClusterArgs
from infra.components.database import Database, DatabaseArgs
from infra.components.deployer import Deployer, DeployerArgs, Tunnel, TunnelArgs
from infra.components.event_observer import EventObserver, EventObserverArgs
from infra.components.fargate import Platform, Service
from infra.components.flow_runs import FlowRuns, FlowRunsArgs
from infra.components.network import Network, NetworkArgs, Placement, open_port
from infra.components.observability import (
    NEW_CHAMPION,
    RUN_FAILED,
    RUN_MARKED_CRASHED,
    RUN_REPORTED_CRASHED,
    Observability,
    ObservabilityArgs,
    database_alarms,
    memory_alarm,
    observer_alarms,
    run_alarms,
    service_alarms,
)
from infra.components.prefect_api import API_KEY, PrefectApi
from infra.components.prefect_server import PORT as PREFECT_PORT
from infra.components.prefect_server import PrefectServer
from infra.components.secret import SecretField
from infra.components.server import ServerArgs
from infra.components.tracking_server import ADMIN, TrackingServer, TrackingServerArgs
from infra.components.tracking_server import PORT as MLFLOW_PORT
from infra.components.worker import Worker, WorkerArgs
from infra.naming import OUTPUTS, READY, REPOSITORIES, Location, Names, repository
from infra.readiness import NOTHING_DONE, Servers, ready
from infra.settings import Settings


@dataclass(frozen=True)
class Surroundings:
    """What is there before the stack, looked up once."""

    location: Location
    boundary: str
    """The policy that bounds every role of the stack."""
    zones: tuple[str, ...]
    """Names of the region's availability zones."""
    noted: dict[str, object]
    """What `make up` has done to this stack (infra/readiness.py)."""


def servers_of(settings: Settings) -> Servers:
    """The servers that this stack runs itself."""
    return Servers(
        mlflow="" if settings.tracking_uri else settings.mlflow_image,
        prefect=settings.worker_image if settings.prefect == "self-hosted" else "",
    )


def environment(
    settings: Settings, around: Surroundings, opts: ResourceOptions
) -> dict[str, Input[object]]:
    """Make an environment's components; returns the stack's outputs."""
    names, sizes = Names(settings.stack), settings.sizes
    own_tracking, own_prefect = not settings.tracking_uri, settings.prefect == "self-hosted"
    # A stack runs no server of a kind that it has elsewhere, so it may need no database at all.
    may_run = ready(around.noted, servers_of(settings), worker_image=settings.worker_image)
    platform = Platform(
        location=around.location,
        architecture=settings.cpu_architecture,
        log_days=settings.log_retention_days,
        permissions_boundary=around.boundary,
        image_account=settings.image_account_id,
    )

    placement = place(settings, around, names, opts)
    store = ArtifactStore(
        names("artifacts"),
        ArtifactStoreArgs(
            location=around.location,
            customer_key=sizes.customer_key,
            access_logs=sizes.access_logs,
            durable=settings.durable,
            log_days=settings.log_retention_days,
        ),
        opts,
    )
    cluster = Cluster(
        names("cluster"),
        ClusterArgs(
            cluster_name=names.prefix,
            container_insights=sizes.container_insights,
            vpc_id=placement.vpc_id,
            namespace=names.namespace if own_tracking or own_prefect else None,
        ),
        opts,
    )
    database: Database | None = None
    if own_tracking or own_prefect:
        database = Database(
            names("database"),
            DatabaseArgs(
                placement=placement,
                instance_class=settings.database_class or sizes.database_class,
                storage_gb=settings.database_storage_gb,
                standby=sizes.database_standby,
                backup_days=sizes.backup_days,
                password_version=settings.database_password_version,
                durable=settings.durable,
                log_days=settings.log_retention_days,
            ),
            opts,
        )

    def server_args(part: str, image: str, runs: bool, database: Database) -> ServerArgs:
        return ServerArgs(
            platform=platform,
            placement=placement,
            cluster_arn=cluster.arn,
            namespace_id=cluster.namespace_id,
            namespace=names.namespace,
            image=image,
            count=int(runs),
            spot=sizes.spot,
            database=database,
            durable=settings.durable,
            log_group=names.log_group(part),
            migration_log_group=names.log_group(f"{part}-migrate"),
        )

    tracking: TrackingServer | None = None
    if own_tracking and database:
        mlflow = server_args("mlflow", settings.mlflow_image, may_run.mlflow, database)
        tracking = TrackingServer(names("mlflow"), TrackingServerArgs(mlflow, store), opts)
    server: PrefectServer | None = None
    if own_prefect and database:
        prefect = server_args("prefect", settings.worker_image, may_run.prefect, database)
        server = PrefectServer(names("prefect"), prefect, opts)
        api = server.api
    else:
        api = PrefectApi(
            url=settings.prefect_api_url,
            secret=SecretField(settings.prefect_api_key_secret_arn),
            secret_variable=API_KEY,
        )
    run_secrets = {
        **{variable: SecretField(arn) for variable, arn in settings.flow_secrets.items()},
        api.secret_variable: api.secret,
    }
    if tracking:
        run_secrets["MLFLOW_TRACKING_PASSWORD"] = tracking.admin.field("password")
    flow_runs = FlowRuns(
        names("flows"),
        FlowRunsArgs(
            platform=platform,
            placement=placement,
            log_group=names.log_group("flows"),
            bucket_arn=store.arn,
            key_arn=store.key_arn,
            source_prefixes=settings.source_prefixes,
            secrets=run_secrets,
        ),
        opts,
    )
    observer = EventObserver(
        names("observer"),
        EventObserverArgs(queue_name=names("ecs-events"), cluster_arn=cluster.arn),
        opts,
    )
    worker = Worker(
        names("worker"),
        WorkerArgs(
            platform=platform,
            placement=placement,
            cluster_arn=cluster.arn,
            cluster_name=cluster.cluster_name,
            image=settings.worker_image,
            count=sizes.workers if may_run.worker else 0,
            spot=sizes.spot,
            work_pool=settings.work_pool_name,
            api=api,
            flow_runs=flow_runs,
            observer=observer,
            log_group=names.log_group("worker"),
        ),
        opts,
    )
    deployer = Deployer(
        names("deployer"),
        DeployerArgs(
            platform=platform,
            placement=placement,
            image=settings.worker_image,
            flow_image=settings.flow_image,
            api=api,
            notify_webhook_secret=settings.notify_webhook_secret_arn,
            outputs_parameter=names.parameter(OUTPUTS),
            log_group=names.log_group("deployer"),
        ),
        opts,
    )
    tunnel = Tunnel(
        names("tunnel"),
        TunnelArgs(
            platform=platform,
            placement=placement,
            image=settings.worker_image,
            log_group=names.log_group("tunnel"),
        ),
        opts,
    )
    callers = {
        "flows": flow_runs.security_group_id,
        "worker": worker.service.security_group_id,
        "deployer": deployer.security_group_id,
        "tunnel": tunnel.security_group_id,
    }
    if server:
        for who, group in callers.items():
            open_port(
                names(f"{who}-prefect"),
                PREFECT_PORT,
                what="Prefect",
                source=group,
                target=server.service.security_group_id,
                opts=opts,
            )
    if tracking:
        for who in ("flows", "tunnel"):
            open_port(
                names(f"{who}-mlflow"),
                MLFLOW_PORT,
                what="MLflow",
                source=callers[who],
                target=tracking.service.security_group_id,
                opts=opts,
            )

    running: dict[str, tuple[Service, int]] = {"worker": (worker.service, sizes.workers)}
    if tracking:
        running["mlflow"] = (tracking.service, 1)
    if server:
        running["prefect"] = (server.service, 1)
    observability = Observability(
        names("watch"),
        ObservabilityArgs(
            location=around.location, stack=settings.stack, emails=settings.alarm_emails
        ),
        opts,
    )
    flow_log, worker_log = flow_runs.log_group_name, worker.service.task.log_group_name
    observability.count("RunsFailed", flow_log, "failed", RUN_FAILED)
    observability.count("RunsCrashed", flow_log, "crashed", RUN_REPORTED_CRASHED)
    observability.count("RunsCrashed", worker_log, "gone", RUN_MARKED_CRASHED)
    observability.count("Champions", flow_log, "champion", NEW_CHAMPION)
    alarms = run_alarms(observability.namespace)
    alarms += observer_alarms(observer.queue_name, observer.dead_letter_name, observer.rule_name)
    for label, (service, count) in running.items():
        if getattr(may_run, label):  # what is held back isn't down
            alarms += service_alarms(
                label,
                service.service_name,
                cluster.cluster_name,
                insights=sizes.container_insights,
                running=count,
            )
        alarms.append(memory_alarm(label, service.service_name, cluster.cluster_name))
    if database:
        alarms += database_alarms(database.identifier, settings.database_storage_gb)
    observability.watch(alarms)
    if settings.monthly_budget_usd:
        Budget(
            names("budget"),
            BudgetArgs(
                stack=settings.stack,
                monthly_usd=settings.monthly_budget_usd,
                topic_arn=observability.topic_arn,
            ),
            opts,
        )

    registry = around.location.registry(settings.image_account_id)
    outputs = Output.all(
        stack=settings.stack,
        prefect_api_url=api.url,
        tracking_uri=tracking.uri if tracking else settings.tracking_uri,
        artifact_store=Output.format("s3://{0}/{1}", store.bucket, FLOWS[:-1]),
        code_dir="/app",
        image_repositories={image: f"{registry}/{repository(image)}" for image in REPOSITORIES},
        work_pool=Output.all(
            type="ecs",
            name=settings.work_pool_name,
            region=around.location.region,
            cluster_arn=cluster.arn,
            vpc_id=placement.vpc_id,
            subnet_ids=list(placement.task_subnet_ids),
            security_group_ids=[flow_runs.security_group_id],
            assign_public_ip=placement.public_addresses,
            capacity_provider="FARGATE_SPOT" if sizes.spot else "FARGATE",
            cpu_architecture=settings.cpu_architecture.upper(),
            execution_role_arn=flow_runs.execution_role_arn,
            task_role_arn=flow_runs.task_role_arn,
            log_group=flow_runs.log_group_name,
            queue_name=observer.queue_name,
            environment={"MLFLOW_TRACKING_USERNAME": ADMIN} if tracking else {},
            secrets={
                variable: secret.value_from
                for variable, secret in run_secrets.items()
                if variable != api.secret_variable
            },
            api_secret_variable=api.secret_variable,
            api_secret=api.secret.value_from,
        ),
        active_schedules=settings.active_schedules,
        training_data=settings.training_data,
        notify_webhook_secret=settings.notify_webhook_secret_arn,
    )
    aws.ssm.Parameter(
        names(OUTPUTS),
        name=names.parameter(OUTPUTS),
        description="StackOutputs: what register and deploy read",
        type="String",
        value=Output.json_dumps(outputs),
        opts=opts,
    )
    aws.ssm.Parameter(
        names(READY),
        name=names.parameter(READY),
        description="What `make up` has done to this stack",
        type="String",
        value=NOTHING_DONE,
        # `make up` writes it; here it is made, and removed with the stack.
        opts=ResourceOptions.merge(opts, ResourceOptions(ignore_changes=["value"])),
    )
    held = [label for label in running if not getattr(may_run, label)]
    return {
        "trainyard": outputs,
        "services": Output.all(**{k: s.service_name for k, (s, _) in running.items()}),
        "tasks": Output.all(
            cluster=cluster.arn,
            subnets=list(placement.task_subnet_ids),
            public_addresses=placement.public_addresses,
            definitions={
                "deployer": deployer.task.definition.arn,
                "tunnel": tunnel.task.definition.arn,
                **({"migrate-mlflow": tracking.migration.definition.arn} if tracking else {}),
                **({"migrate-prefect": server.migration.definition.arn} if server else {}),
            },
            security_groups={
                "deployer": deployer.security_group_id,
                "tunnel": tunnel.security_group_id,
                **({"migrate-mlflow": tracking.service.security_group_id} if tracking else {}),
                **({"migrate-prefect": server.service.security_group_id} if server else {}),
            },
        ),
        "servers": asdict(servers_of(settings)),
        "flow_image": settings.flow_image,
        "held_back": held,
        "next": next_step(settings, held),
    }


def place(
    settings: Settings, around: Surroundings, names: Names, opts: ResourceOptions
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
            location=around.location,
            cidr=settings.vpc_cidr,
            zones=around.zones[: sizes.zones],
            nat_gateways=sizes.nat_gateways,
            interface_endpoints=settings.interface_endpoints,
            flow_log_group=names.log_group("network"),
            flow_log_days=settings.log_retention_days if sizes.flow_logs else None,
            permissions_boundary=around.boundary,
        ),
        opts,
    ).placement


def next_step(settings: Settings, held: list[str]) -> str:
    """What to type now."""
    if not settings.flow_image or not settings.worker_image:
        return "push to main: the first deployment builds the images and fills in their digests"
    if held:
        later = ", ".join(held)
        return f"make up STACK={settings.stack}   # migrates, registers, then starts: {later}"
    return f"make deploy STACK={settings.stack}   # or: make ui STACK={settings.stack}"
