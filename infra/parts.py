"""How each part of an environment is made: settings -> a component's arguments. What an environment
consists of is listed in environment.py.
"""

from collections.abc import Mapping

from pulumi import Input

from infra.components.artifact_store import ArtifactStore, ArtifactStoreArgs
from infra.components.budget import Budget, BudgetArgs
from infra.components.cluster import Cluster, ClusterArgs
from infra.components.database import Database, DatabaseArgs
from infra.components.event_observer import EventObserver, EventObserverArgs
from infra.components.fargate import Service
from infra.components.flow_runs import FlowRuns, FlowRunsArgs
from infra.components.flows_database import FlowsDatabase, FlowsDatabaseArgs
from infra.components.observability import (
    DRIFT,
    NEW_CHAMPION,
    Observability,
    ObservabilityArgs,
    database_alarms,
    memory_alarm,
    observer_alarms,
    run_alarms,
    service_alarms,
)
from infra.components.one_off_task import OneOffTask, OneOffTaskArgs, deployer, models, tunnel
from infra.components.prefect_api import API_KEY, PrefectApi
from infra.components.prefect_server import PrefectServer
from infra.components.secret import SecretField
from infra.components.server import ServerArgs
from infra.components.tracking_server import ADMIN, TrackingServer, TrackingServerArgs
from infra.components.worker import Worker, WorkerArgs
from infra.serving import alarms_of_serving, label_of
from infra.settings import Settings
from infra.site import Site, own_prefect, own_tracking
from trainyard.contract.naming import OUTPUTS
from trainyard.contract.run_states import (
    LOG_CRASHED,
    LOG_FAILED,
    LOG_FOUND_CRASHED,
    LOG_TASK_GONE,
)


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
            request_days=settings.serve_log_days,
        ),
        site.opts,
    )


def ecs_cluster(site: Site) -> Cluster:
    """Where tasks run, and the private names of servers."""
    settings = site.settings
    servers = own_tracking(settings) or own_prefect(settings) or bool(settings.serve)
    return Cluster(
        site.names("cluster"),
        ClusterArgs(
            cluster_name=site.names.prefix,
            container_insights=settings.sizes.container_insights,
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


def flows_database(site: Site, database: Database) -> FlowsDatabase:
    """The flows' own database, on the same instance."""
    return FlowsDatabase(
        site.names("flows-database"),
        FlowsDatabaseArgs(
            platform=site.platform,
            image=site.settings.worker_image,
            database=database,
            password_version=site.settings.server_password_version,
            durable=site.settings.durable,
            migration_log_group=site.names.log_group("flows-database-migrate"),
        ),
        site.opts,
    )


def prefect_cloud(settings: Settings) -> PrefectApi:
    """Prefect Cloud, as the settings name it."""
    return PrefectApi(
        url=settings.prefect_api_url,
        secret=SecretField(settings.prefect_api_key_secret_arn),
        secret_variable=API_KEY,
    )


def secrets_of_runs(
    settings: Settings,
    api: PrefectApi,
    tracking: TrackingServer | None,
    flows_database: FlowsDatabase | None,
) -> dict[str, SecretField]:
    """What every run's container is given: environment variable -> secret."""
    secrets = {variable: SecretField(arn) for variable, arn in settings.flow_secrets.items()}
    secrets[api.secret_variable] = api.secret
    if tracking:
        secrets["MLFLOW_TRACKING_PASSWORD"] = tracking.admin.field("password")
    return secrets | (flows_database.secrets if flows_database else {})


def environment_of_runs(
    tracking: TrackingServer | None, flows_database: FlowsDatabase | None
) -> dict[str, Input[str]]:
    """What every run's container is told, beside where MLflow and the artifact store are."""
    environment: dict[str, Input[str]] = {"MLFLOW_TRACKING_USERNAME": ADMIN} if tracking else {}
    return environment | (flows_database.environment if flows_database else {})


def runs_args(site: Site, store: ArtifactStore, secrets: Mapping[str, SecretField]) -> FlowRunsArgs:
    """What flow runs are started with, and the models' task."""
    return FlowRunsArgs(
        platform=site.platform,
        placement=site.placement,
        log_group=site.names.log_group("flows"),
        bucket_arn=store.arn,
        key_arn=store.key_arn,
        source_prefixes=site.settings.source_prefixes,
        secrets=secrets,
    )


def runs(site: Site, args: FlowRunsArgs) -> FlowRuns:
    return FlowRuns(site.names("flows"), args, site.opts)


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


def flow_deployer(site: Site, api: PrefectApi) -> OneOffTask:
    task = deployer(
        site.platform,
        site.settings.flow_image,
        api,
        notify_webhook_secret=site.settings.notify_webhook_secret_arn,
        outputs_parameter=site.names.parameter(OUTPUTS),
        log_group=site.names.log_group("deployer"),
    )
    args = OneOffTaskArgs(placement=site.placement, what="Deployer", task=task)
    return OneOffTask(site.names("deployer"), args, site.opts)


def models_task(
    site: Site,
    api: PrefectApi,
    tracking_uri: Input[str],
    store: ArtifactStore,
    flows: FlowRunsArgs,
    environment: Mapping[str, Input[str]],
) -> OneOffTask:
    """The task of `trainyard model`."""
    where = {
        **environment,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "TRAINYARD_ARTIFACT_STORE": store.flows_uri,
    }
    task = models(
        site.settings.flow_image, api, flows, where=where, log_group=site.names.log_group("models")
    )
    args = OneOffTaskArgs(placement=site.placement, what="Models", task=task)
    return OneOffTask(site.names("models"), args, site.opts)


def ui_tunnel(site: Site) -> OneOffTask:
    task = tunnel(site.platform, site.settings.worker_image, site.names.log_group("tunnel"))
    args = OneOffTaskArgs(placement=site.placement, what="Tunnel", task=task)
    return OneOffTask(site.names("tunnel"), args, site.opts)


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
    for number, words in enumerate(LOG_FAILED, start=1):
        observability.count("RunsFailed", flow_log, f"failed-{number}", words)
    observability.count("RunsCrashed", flow_log, "interrupted", LOG_CRASHED)
    observability.count("RunsCrashed", flow_log, "crashed", LOG_FOUND_CRASHED)
    observability.count("RunsCrashed", worker_log, "not-started", LOG_FOUND_CRASHED)
    observability.count("RunsCrashed", worker_log, "gone", LOG_TASK_GONE)
    observability.count("Champions", flow_log, "champion", NEW_CHAMPION)
    observability.count("Drift", flow_log, "drift", DRIFT)
    alarms = run_alarms(observability.namespace)
    alarms += alarms_of_serving(observability, services, settings.serve)
    alarms += observer_alarms(observer.queue_name, observer.dead_letter_name, observer.rule_name)
    running = {label_of(model): sizes.model_servers for model in settings.serve}
    running["worker"] = sizes.workers
    for label, service in services.items():
        if getattr(site.may_run, label, True):  # what is held back isn't down
            alarms += service_alarms(
                label,
                service.service_name,
                cluster.cluster_name,
                insights=sizes.container_insights,
                running=running.get(label, 1),
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
