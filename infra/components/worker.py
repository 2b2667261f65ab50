"""Worker: Prefect's ECS worker, which starts flow runs as tasks of the cluster."""

from dataclasses import dataclass

import pulumi
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from infra.components.event_observer import EventObserver
from infra.components.fargate import Container, Platform, Service, ServiceArgs, TaskArgs
from infra.components.flow_runs import FlowRuns
from infra.components.network import Placement
from infra.components.prefect_api import PrefectApi
from trainyard.contract.fargate_sizes import Size
from trainyard.contract.naming import Location

HEALTH_PORT = 8080
OBSERVER = "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER"


@dataclass(frozen=True)
class WorkerArgs:
    """Arguments of Worker."""

    platform: Platform
    placement: Placement
    cluster_arn: Input[str]
    cluster_name: str
    image: str
    count: int
    spot: bool
    work_pool: str
    api: PrefectApi
    flow_runs: FlowRuns
    observer: EventObserver
    log_group: str


class Worker(pulumi.ComponentResource):
    """Create Prefect's ECS worker as a service: it starts each flow run as a task of the cluster.

    Inputs: `image`; `work_pool` and `api`, where it looks for runs; `flow_runs`, what it starts
    them with; `observer`, whose queue it reads; `count` is 0 until the pool is registered.
    Outputs: `service`.
    Idle cost: 6.95 $ a month with `minimal`, 10.63 with `standard`, 21.26 with `ha` (two).
    """

    service: Service

    def __init__(self, name: str, args: WorkerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:compute:Worker", name, None, opts)
        location = args.platform.location
        task = TaskArgs(
            platform=args.platform,
            container_name="worker",
            container=Container(
                image=args.image,
                command=(
                    *("python", "-m", "trainyard.prefect.patches.worker"),
                    *("worker", "start", "--type", "ecs", "--pool", args.work_pool),
                    "--with-healthcheck",
                    # `register` makes the pool; one that a worker makes has Prefect's defaults.
                    "--no-create-pool-if-not-found",
                    *("--install-policy", "never"),
                ),
                environment={
                    "AWS_DEFAULT_REGION": location.region,
                    "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                    "PREFECT_API_URL": args.api.url,
                    "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
                    # The name that Prefect reads; its ..._OBSERVER_ENABLED it never reads.
                    f"{OBSERVER}_SQS_QUEUE_NAME": args.observer.queue_name,
                    f"{OBSERVER}_SQS_QUEUE_REGION": location.region,
                    # Without it a cancelled run that waits for its machine leaves its task running.
                    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
                    "PREFECT_WORKER_WEBSERVER_PORT": str(HEALTH_PORT),
                },
                secrets={args.api.secret_variable: args.api.secret},
                health_path="/health",
                health_port=HEALTH_PORT,
                # At SIGTERM it finishes what it is handing over to ECS.
                stop_seconds=60,
            ),
            size=Size(256, 1024),
            log_group=args.log_group,
            rights=worker_rights(location, args),
        )
        self.service = Service(
            name,
            ServiceArgs(
                task=task,
                cluster_arn=args.cluster_arn,
                placement=args.placement,
                count=args.count,
                spot=args.spot,
                what="Prefect worker",
            ),
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({"service_name": self.service.service_name})


def worker_rights(location: Location, args: WorkerArgs) -> list[iam.Statement]:
    """What Prefect's ECS worker calls, and nothing it doesn't."""
    tasks = location.arn("ecs", f"task/{args.cluster_name}/*")
    # Prefect names a deployment's family prefect_<pool>_<deployment id>.
    families = location.arn("ecs", f"task-definition/prefect_{args.work_pool}_*")
    in_cluster = {"ArnEquals": {"ecs:cluster": args.cluster_arn}}
    return [
        iam.anywhere("DescribeTaskDefinitions", "ecs:DescribeTaskDefinition"),
        iam.allow("RegisterTaskDefinitions", "ecs:RegisterTaskDefinition", on=[families]),
        iam.allow("RunTasks", "ecs:RunTask", on=[families], when=in_cluster),
        iam.allow("WatchTasks", "ecs:DescribeTasks", "ecs:StopTask", on=[tasks], when=in_cluster),
        iam.allow(
            "TagNewTasks",
            "ecs:TagResource",
            on=[tasks, families],
            when={"StringEquals": {"ecs:CreateAction": ["RunTask", "RegisterTaskDefinition"]}},
        ),
        iam.allow(
            "PassFlowRoles",
            "iam:PassRole",
            on=[args.flow_runs.execution_role_arn, args.flow_runs.task_role_arn],
            when={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        ),
        iam.allow(
            "ObserveTasks",
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueUrl",
            "sqs:ReceiveMessage",
            on=[args.observer.queue_arn],
        ),
        # The last lines of a run that died before it could speak.
        iam.allow(
            "ReadRunLogs",
            "logs:GetLogEvents",
            on=[Output.format("{0}:*", args.flow_runs.log_group_arn)],
        ),
    ]
