"""An environment's stack: everything but what an account has once. Read `environment` as the list
of its parts; below it is how each is made.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.artifact_store import ArtifactStore, ArtifactStoreArgs
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
from infra.components.tracking_server import PORT as MLFLOW_PORT
from infra.components.tracking_server import TrackingServer, TrackingServerArgs
from infra.components.worker import Worker, WorkerArgs
from infra.settings import Settings
from infra.stack_outputs import Parts, one_off_tasks, stack_outputs
from trainyard.contract.naming import OUTPUTS, READY, RELEASE, RELEASES, Location, Names
from trainyard.contract.readiness import NOTHING_DONE, Ready, Servers, ready


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
    opts: ResourceOptions


def environment(
    settings: Settings, context: AwsContext, opts: ResourceOptions
) -> dict[str, Input[object]]:
    """Make an environment's components; returns the stack's outputs."""
    site = prepare(settings, context, opts)
    store = artifact_store(site)
    cluster = ecs_cluster(site)
    # A stack runs no server of a kind that it has elsewhere, so it may need no database at all.
    database = postgres(site) if own_tracking(settings) or own_prefect(settings) else None
    tracking = server = None
    if database and own_tracking(settings):
        tracking = tracking_server(site, cluster, database, store)
    if database and own_prefect(settings):
        server = prefect_server(site, cluster, database)
    api = server.api if server else prefect_cloud(settings)
    run_secrets = secrets_of_runs(settings, api, tracking)
    flow_runs = runs(site, store, run_secrets)
    observer = event_observer(site, cluster)
    worker = prefect_worker(site, cluster, api, flow_runs, observer)
    deployer = flow_deployer(site, api)
    tunnel = ui_tunnel(site)
    callers = {
        "flows": flow_runs.security_group_id,
        "worker": worker.service.security_group_id,
        "deployer": deployer.security_group_id,
        "tunnel": tunnel.security_group_id,
    }
    if server:
        let_in(site, "prefect", "Prefect", PREFECT_PORT, server.service, callers)
    if tracking:
        others = {name: group for name, group in callers.items() if name != "worker"}
        let_in(site, "mlflow", "MLflow", MLFLOW_PORT, tracking.service, others)
    services: dict[str, Service] = {"worker": worker.service}
    if tracking:
        services["mlflow"] = tracking.service
    if server:
        services["prefect"] = server.service
    watch(site, cluster, database, flow_runs, observer, services)

    parts = Parts(
        placement=site.placement,
        store=store,
        cluster=cluster,
        tracking=tracking,
        server=server,
        api=api,
        run_secrets=run_secrets,
        flow_runs=flow_runs,
        observer=observer,
        deployer=deployer,
        tunnel=tunnel,
    )
    outputs = stack_outputs(settings, site.location, parts)
    keep_parameters(site, outputs)
    held = [label for label in services if not getattr(site.may_run, label)]
    return {
        "trainyard": outputs,
        "services": Output.all(**{name: s.service_name for name, s in services.items()}),
        "tasks": one_off_tasks(parts),
        "servers": asdict(servers_of(settings)),
        "flow_image": settings.flow_image,
        "held_back": held,
        "next": next_step(settings, held),
    }


# --- what a stack has of its own ------------------------------------------------------------------
def own_tracking(settings: Settings) -> bool:
    """Whether the stack runs MLflow itself."""
    return not settings.tracking_uri


def own_prefect(settings: Settings) -> bool:
    """Whether the stack runs Prefect's server itself."""
    return settings.prefect == "self-hosted"


def servers_of(settings: Settings) -> Servers:
    """The servers that this stack runs itself."""
    return Servers(
        mlflow=settings.mlflow_image if own_tracking(settings) else "",
        prefect=settings.worker_image if own_prefect(settings) else "",
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


# --- parts ----------------------------------------------------------------------------------------
def artifact_store(site: Site) -> ArtifactStore:
    """The bucket of artifacts, results and models."""
    settings = site.settings
    return ArtifactStore(
        site.names("artifacts"),
        ArtifactStoreArgs(
            location=site.location,
            customer_key=settings.sizes.customer_key,
            access_logs=settings.sizes.access_logs,
            durable=settings.durable,
            log_days=settings.log_retention_days,
        ),
        site.opts,
    )


def ecs_cluster(site: Site) -> Cluster:
    """Where tasks run, and the private names of servers."""
    servers = own_tracking(site.settings) or own_prefect(site.settings)
    return Cluster(
        site.names("cluster"),
        ClusterArgs(
            cluster_name=site.names.prefix,
            container_insights=site.settings.sizes.container_insights,
            vpc_id=site.placement.vpc_id,
            namespace=site.names.namespace if servers else None,
        ),
        site.opts,
    )


def postgres(site: Site) -> Database:
    """The database of the stack's own servers."""
    settings = site.settings
    return Database(
        site.names("database"),
        DatabaseArgs(
            placement=site.placement,
            instance_class=settings.database_class or settings.sizes.database_class,
            storage_gb=settings.database_storage_gb,
            snapshot=settings.database_snapshot,
            standby=settings.sizes.database_standby,
            backup_days=settings.sizes.backup_days,
            password_version=settings.database_password_version,
            durable=settings.durable,
            log_days=settings.log_retention_days,
        ),
        site.opts,
    )


def server_args(
    site: Site, part: str, image: str, cluster: Cluster, database: Database
) -> ServerArgs:
    """Arguments of a server with a schema in the stack's database."""
    return ServerArgs(
        platform=site.platform,
        placement=site.placement,
        cluster_arn=cluster.arn,
        namespace_id=cluster.namespace_id,
        namespace=site.names.namespace,
        image=image,
        count=int(getattr(site.may_run, part)),
        spot=site.settings.sizes.spot,
        database=database,
        durable=site.settings.durable,
        password_version=site.settings.server_password_version,
        log_group=site.names.log_group(part),
        migration_log_group=site.names.log_group(f"{part}-migrate"),
    )


def tracking_server(
    site: Site, cluster: Cluster, database: Database, store: ArtifactStore
) -> TrackingServer:
    """MLflow."""
    args = server_args(site, "mlflow", site.settings.mlflow_image, cluster, database)
    return TrackingServer(site.names("mlflow"), TrackingServerArgs(args, store), site.opts)


def prefect_server(site: Site, cluster: Cluster, database: Database) -> PrefectServer:
    """Prefect's API and pages."""
    args = server_args(site, "prefect", site.settings.worker_image, cluster, database)
    return PrefectServer(site.names("prefect"), args, site.opts)


def prefect_cloud(settings: Settings) -> PrefectApi:
    """Prefect Cloud, as the settings name it."""
    return PrefectApi(
        url=settings.prefect_api_url,
        secret=SecretField(settings.prefect_api_key_secret_arn),
        secret_variable=API_KEY,
    )


def secrets_of_runs(
    settings: Settings, api: PrefectApi, tracking: TrackingServer | None
) -> dict[str, SecretField]:
    """What every run's container is given: environment variable -> secret."""
    secrets = {variable: SecretField(arn) for variable, arn in settings.flow_secrets.items()}
    secrets[api.secret_variable] = api.secret
    if tracking:
        secrets["MLFLOW_TRACKING_PASSWORD"] = tracking.admin.field("password")
    return secrets


def runs(site: Site, store: ArtifactStore, secrets: Mapping[str, SecretField]) -> FlowRuns:
    """What flow runs are started with."""
    return FlowRuns(
        site.names("flows"),
        FlowRunsArgs(
            platform=site.platform,
            placement=site.placement,
            log_group=site.names.log_group("flows"),
            bucket_arn=store.arn,
            key_arn=store.key_arn,
            source_prefixes=site.settings.source_prefixes,
            secrets=secrets,
        ),
        site.opts,
    )


def event_observer(site: Site, cluster: Cluster) -> EventObserver:
    """The queue of ECS's events on tasks."""
    return EventObserver(
        site.names("observer"),
        EventObserverArgs(queue_name=site.names("ecs-events"), cluster_arn=cluster.arn),
        site.opts,
    )


def prefect_worker(
    site: Site, cluster: Cluster, api: PrefectApi, flow_runs: FlowRuns, observer: EventObserver
) -> Worker:
    """Prefect's worker, which starts runs as tasks."""
    sizes = site.settings.sizes
    return Worker(
        site.names("worker"),
        WorkerArgs(
            platform=site.platform,
            placement=site.placement,
            cluster_arn=cluster.arn,
            cluster_name=cluster.cluster_name,
            image=site.settings.worker_image,
            count=sizes.workers if site.may_run.worker else 0,
            spot=sizes.spot,
            work_pool=site.settings.work_pool_name,
            api=api,
            flow_runs=flow_runs,
            observer=observer,
            log_group=site.names.log_group("worker"),
        ),
        site.opts,
    )


def flow_deployer(site: Site, api: PrefectApi) -> Deployer:
    """The one-off task that registers and deploys from inside the VPC."""
    return Deployer(
        site.names("deployer"),
        DeployerArgs(
            platform=site.platform,
            placement=site.placement,
            image=site.settings.flow_image,
            api=api,
            notify_webhook_secret=site.settings.notify_webhook_secret_arn,
            outputs_parameter=site.names.parameter(OUTPUTS),
            log_group=site.names.log_group("deployer"),
        ),
        site.opts,
    )


def ui_tunnel(site: Site) -> Tunnel:
    """The one-off task that `make ui` goes through."""
    return Tunnel(
        site.names("tunnel"),
        TunnelArgs(
            platform=site.platform,
            placement=site.placement,
            image=site.settings.worker_image,
            log_group=site.names.log_group("tunnel"),
        ),
        site.opts,
    )


def let_in(
    site: Site,
    part: str,
    what: str,
    port: int,
    service: Service,
    callers: Mapping[str, Input[str]],
) -> None:
    """Open a server's port to the security groups that call it."""
    for who, group in callers.items():
        open_port(
            site.names(f"{who}-{part}"),
            port,
            what=what,
            source=group,
            target=service.security_group_id,
            opts=site.opts,
        )


def watch(
    site: Site,
    cluster: Cluster,
    database: Database | None,
    flow_runs: FlowRuns,
    observer: EventObserver,
    services: Mapping[str, Service],
) -> None:
    """Alarms, the dashboard, and the budget."""
    settings, sizes = site.settings, site.settings.sizes
    observability = Observability(
        site.names("watch"),
        ObservabilityArgs(
            location=site.location, stack=settings.stack, emails=settings.alarm_emails
        ),
        site.opts,
    )
    flow_log, worker_log = flow_runs.log_group_name, services["worker"].task.log_group_name
    observability.count("RunsFailed", flow_log, "failed", RUN_FAILED)
    observability.count("RunsCrashed", flow_log, "crashed", RUN_REPORTED_CRASHED)
    observability.count("RunsCrashed", worker_log, "gone", RUN_MARKED_CRASHED)
    observability.count("Champions", flow_log, "champion", NEW_CHAMPION)
    alarms = run_alarms(observability.namespace)
    alarms += observer_alarms(observer.queue_name, observer.dead_letter_name, observer.rule_name)
    for label, service in services.items():
        if getattr(site.may_run, label):  # what is held back isn't down
            alarms += service_alarms(
                label,
                service.service_name,
                cluster.cluster_name,
                insights=sizes.container_insights,
                running=sizes.workers if label == "worker" else 1,
            )
        alarms.append(memory_alarm(label, service.service_name, cluster.cluster_name))
    if database:
        alarms += database_alarms(database.identifier, settings.database_storage_gb)
    observability.watch(alarms)
    if settings.monthly_budget_usd:
        Budget(
            site.names("budget"),
            BudgetArgs(
                stack=settings.stack,
                monthly_usd=settings.monthly_budget_usd,
                topic_arn=observability.topic_arn,
            ),
            site.opts,
        )


def keep_parameters(site: Site, outputs: Input[object]) -> None:
    """StackOutputs, and what `make up` and `make release` note, in Systems Manager's store."""
    aws.ssm.Parameter(
        site.names(OUTPUTS),
        name=site.names.parameter(OUTPUTS),
        description="StackOutputs: what register and deploy read",
        type="String",
        value=Output.json_dumps(outputs),
        opts=site.opts,
    )
    for part, value, what in (
        (READY, NOTHING_DONE, "What `make up` has done to this stack"),
        (RELEASE, NOTHING_DONE, "The release that this stack was last told to run"),
        (RELEASES, "[]", "Releases whose smoke run completed here, the newest first"),
    ):
        aws.ssm.Parameter(
            site.names(part),
            name=site.names.parameter(part),
            description=what,
            type="String",
            value=value,
            # The commands write them; here they are made, and removed with the stack.
            opts=ResourceOptions.merge(site.opts, ResourceOptions(ignore_changes=["value"])),
        )


def next_step(settings: Settings, held: list[str]) -> str:
    """What to type now."""
    if not settings.flow_image or not settings.worker_image:
        return f"push to main, or make publish release STACK={settings.stack}   # no images yet"
    if held:
        later = ", ".join(held)
        return f"make up STACK={settings.stack}   # migrates, registers, then starts: {later}"
    return f"make deploy STACK={settings.stack}   # or: make ui STACK={settings.stack}"
