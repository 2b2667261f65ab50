"""ModelServer: a registered model's champion behind HTTP, as a service of the flows' own image.
Private: whoever the settings name reaches it, and nobody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, ResourceOptions

from infra.components import iam
from infra.components.artifact_store import REQUESTS, ArtifactStore
from infra.components.cluster import Cluster
from infra.components.fargate import Container, Platform, Service, ServiceArgs, TaskArgs
from infra.components.load_balancer import LoadBalancer
from infra.components.network import Placement, admit, open_port
from infra.components.secret import SecretField
from trainyard.contract.fargate_sizes import Size
from trainyard.contract.outputs import SERVE_LOG

PORT = 8000
BUSY = 60
"""Per cent of its CPU that autoscaling keeps to."""


@dataclass(frozen=True)
class ModelServerArgs:
    """Arguments of ModelServer."""

    platform: Platform
    placement: Placement
    cluster: Cluster
    namespace: str
    model: str
    image: str
    count: int
    max_count: int
    """Autoscaling adds tasks up to these; 0 for none."""
    spot: bool
    waits: bool
    """`up` waits for it: not while the stack's MLflow is held back, which it needs to start."""
    environment: Mapping[str, Input[str]]
    secrets: Mapping[str, SecretField]
    """With `environment`, how it reaches MLflow."""
    store: ArtifactStore
    log_group: str
    log_percent: int
    """Of the requests, that it logs in `store`."""
    from_cidrs: Sequence[str]
    from_security_groups: Sequence[str]
    load_balancer: LoadBalancer | None = None
    """Given, only it reaches the tasks."""


class ModelServer(pulumi.ComponentResource):
    """Create a service that answers HTTP with a registered model's champion, for named callers.

    A new task takes requests once it has loaded the champion. While there is no champion it is
    healthy and answers 503. It writes its own request log, and nothing else.

    Inputs: `model`, `image` (the flows'), `count`; `max_count` for autoscaling; `environment` and
    `secrets`, which lead to MLflow; `store`, which has its log; `from_cidrs` and
    `from_security_groups`, who reaches it, directly or through a `load_balancer`.
    Outputs: `url`, `service`.
    Idle cost: 9.24 $ a month with `minimal`, 36.04 with `standard` and `ha` (two tasks).
    """

    url: str
    service: Service

    def __init__(self, name: str, args: ModelServerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:serving:ModelServer", name, None, opts)
        inside, balancer = ResourceOptions(parent=self), args.load_balancer
        hosts = [f"{args.model}.{args.namespace}"]
        self.url = f"http://{hosts[0]}:{PORT}"
        target = None
        if balancer:
            hosts.append(balancer.host(args.model))
            self.url = f"https://{hosts[1]}"
            target = balancer.send(name, args.model, PORT, inside)
        self.service = Service(
            name,
            ServiceArgs(
                task=TaskArgs(
                    platform=args.platform,
                    container_name="server",
                    container=container(args, hosts),
                    size=Size(512, 1024),
                    log_group=args.log_group,
                    rights=rights(args),
                ),
                cluster_arn=args.cluster.arn,
                placement=args.placement,
                count=args.count,
                spot=args.spot,
                what=f"Server of the model {args.model}",
                namespace_id=args.cluster.namespace_id,
                dns_name=args.model,
                waits=args.waits,
                scaled=args.max_count > 0,
                target_group_arn=target,
            ),
            opts=inside,
        )
        group = self.service.security_group_id
        if balancer:
            open_port(
                f"{name}-balancer",
                PORT,
                what=f"The model {args.model}",
                source=balancer.security_group_id,
                target=group,
                opts=inside,
            )
        else:
            admit(name, PORT, args.from_cidrs, args.from_security_groups, group, inside)
        if args.max_count:
            self._scale(name, args)
        self.register_outputs({"url": self.url})

    def _scale(self, name: str, args: ModelServerArgs) -> None:
        inside = ResourceOptions(parent=self)
        service = pulumi.Output.format(
            "service/{0}/{1}", args.cluster.cluster_name, self.service.service_name
        )
        target = aws.appautoscaling.Target(
            f"{name}-count",
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=service,
            min_capacity=args.count,
            max_capacity=args.max_count,
            opts=inside,
        )
        aws.appautoscaling.Policy(
            f"{name}-cpu",
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            target_tracking_scaling_policy_configuration={
                "target_value": BUSY,
                "predefined_metric_specification": {
                    "predefined_metric_type": "ECSServiceAverageCPUUtilization"
                },
            },
            opts=inside,
        )


def container(args: ModelServerArgs, hosts: Sequence[str]) -> Container:
    """The flows' own command; `hosts` are the names under which it may be asked."""
    return Container(
        image=args.image,
        command=(
            *("python", "-m", "flows.lifecycle", "serve", args.model),
            *("--port", str(PORT), "--hosts", *hosts),
        ),
        environment={
            **args.environment,
            "AWS_DEFAULT_REGION": args.platform.location.region,
            "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
            "TRAINYARD_ARTIFACT_STORE": args.store.flows_uri,
            SERVE_LOG: f"{args.log_percent / 100:g}",
        },
        secrets=args.secrets,
        port=PORT,
        # It listens only once it has the champion or knows that there is none
        # (flows/lifecycle/serving_start.py): nobody has to ask /ready.
        health_path="/health",
        # Beside a new MLflow it waits for that. Three tasks that never get ready, after which ECS
        # rolls back, are still within the 20 minutes for which `up` waits.
        slow_start_seconds=240,
    )


def rights(args: ModelServerArgs) -> list[iam.Statement]:
    """Its own request log, to write; models come through MLflow."""
    own = [iam.write_prefix(args.store.arn, f"{REQUESTS}{args.model}/")]
    return own if args.store.key_arn is None else [*own, iam.use_key(args.store.key_arn)]
