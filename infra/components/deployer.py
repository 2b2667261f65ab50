"""Deployer and Tunnel: what someone outside sends into the VPC, to reach what has no way in."""

from dataclasses import dataclass

import pulumi
from pulumi import Output, ResourceOptions

from infra.components import iam
from infra.components.fargate import Container, Platform, Task, TaskArgs
from infra.components.network import Placement, task_security_group
from infra.components.prefect_api import PrefectApi
from infra.components.secret import SecretField
from trainyard.contract.fargate_sizes import Size

# A forgotten tunnel closes itself.
TUNNEL_SECONDS = 4 * 3600


@dataclass(frozen=True)
class DeployerArgs:
    """Arguments of Deployer."""

    platform: Platform
    placement: Placement
    image: str
    """The flows' own: it holds prefect.yaml, and what its deployments start from is it."""
    api: PrefectApi
    notify_webhook_secret: str
    """The ARN of the secret with the webhook's address; empty without one."""
    outputs_parameter: str
    log_group: str


class Deployer(pulumi.ComponentResource):
    """Create the one-off task that registers the stack and deploys its flows, from inside the VPC.

    Inputs: `image`, the flow image, which holds prefect.yaml; `api`, the Prefect to tell;
    `outputs_parameter`, where it reads StackOutputs; `notify_webhook_secret`, or empty.
    Outputs: `task`, and `security_group_id`, which servers let in.
    Idle cost: free; a task is paid while it runs.
    """

    task: Task
    security_group_id: Output[str]

    def __init__(self, name: str, args: DeployerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:delivery:Deployer", name, None, opts)
        inside = ResourceOptions(parent=self)
        location = args.platform.location
        secrets = {args.api.secret_variable: args.api.secret}
        if args.notify_webhook_secret:
            secrets["TRAINYARD_NOTIFY_WEBHOOK"] = SecretField(args.notify_webhook_secret)
        self.task = Task(
            name,
            TaskArgs(
                platform=args.platform,
                container_name="deployer",
                container=Container(
                    image=args.image,
                    command=("python", "-m", "trainyard.prefect", args.outputs_parameter),
                    environment={
                        "AWS_DEFAULT_REGION": location.region,
                        "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                        "PREFECT_API_URL": args.api.url,
                        "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
                        "TRAINYARD_IMAGE": args.image,
                    },
                    secrets=secrets,
                ),
                size=Size(512, 1024),
                log_group=args.log_group,
                rights=[
                    iam.allow(
                        "ReadOutputs",
                        "ssm:GetParameter",
                        on=[location.arn("ssm", f"parameter{args.outputs_parameter}")],
                    )
                ],
            ),
            opts=inside,
        )
        group = task_security_group(f"{name}-access", args.placement.vpc_id, "Deployer", inside)
        self.security_group_id = group.id
        self.register_outputs({"definition": self.task.definition.arn})


@dataclass(frozen=True)
class TunnelArgs:
    """Arguments of Tunnel."""

    platform: Platform
    placement: Placement
    image: str
    log_group: str


class Tunnel(pulumi.ComponentResource):
    """Create the one-off task through which Systems Manager forwards ports, for `make ui`.

    It stops by itself after four hours.

    Inputs: `placement`; `image`, any that has `sleep` (the worker's).
    Outputs: `task`, and `security_group_id`, which servers let in.
    Idle cost: free; a task is paid while it runs.
    """

    task: Task
    security_group_id: Output[str]

    def __init__(self, name: str, args: TunnelArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:delivery:Tunnel", name, None, opts)
        inside = ResourceOptions(parent=self)
        self.task = Task(
            name,
            TaskArgs(
                platform=args.platform,
                container_name="tunnel",
                container=Container(
                    image=args.image,
                    command=("sleep", str(TUNNEL_SECONDS)),
                    writable_root=True,
                ),
                size=Size(256, 512),
                log_group=args.log_group,
                rights=[
                    iam.anywhere(
                        "Tunnel",
                        "ssmmessages:CreateControlChannel",
                        "ssmmessages:CreateDataChannel",
                        "ssmmessages:OpenControlChannel",
                        "ssmmessages:OpenDataChannel",
                    )
                ],
            ),
            opts=inside,
        )
        group = task_security_group(f"{name}-access", args.placement.vpc_id, "Tunnel", inside)
        self.security_group_id = group.id
        self.register_outputs({"definition": self.task.definition.arn})
