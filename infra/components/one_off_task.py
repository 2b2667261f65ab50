"""OneOffTask: what someone outside sends into the VPC, to reach what has no way in. The stack's own
are the deployer, the tunnel and the models' task.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi import Alias, Input, Output, ResourceOptions

from infra.components import iam
from infra.components.fargate import Container, Platform, Task, TaskArgs
from infra.components.flow_runs import FlowRunsArgs, rights_of_flows
from infra.components.network import Placement, task_security_group
from infra.components.prefect_api import PrefectApi
from infra.components.secret import SecretField
from trainyard.contract.fargate_sizes import Size

# A forgotten tunnel closes itself.
TUNNEL_SECONDS = 4 * 3600


@dataclass(frozen=True)
class OneOffTaskArgs:
    """Arguments of OneOffTask."""

    placement: Placement
    what: str
    """Deployer, Tunnel or Models: what its security group is called. (Of the first two it once was
    their component's type, too.)
    """
    task: TaskArgs


class OneOffTask(pulumi.ComponentResource):
    """Create a task that a command starts from outside the VPC, and a security group for it.

    Inputs: `task`, what it runs and with which rights; `placement`.
    Outputs: `task`, and `security_group_id`, which servers let in.
    Idle cost: free; a task is paid while it runs.
    """

    task: Task
    security_group_id: Output[str]

    def __init__(self, name: str, args: OneOffTaskArgs, opts: ResourceOptions | None = None):
        before = ResourceOptions(aliases=[Alias(type_=f"trainyard:delivery:{args.what}")])
        super().__init__(
            "trainyard:delivery:OneOffTask", name, None, ResourceOptions.merge(opts, before)
        )
        inside = ResourceOptions(parent=self)
        self.task = Task(name, args.task, opts=inside)
        group = task_security_group(f"{name}-access", args.placement.vpc_id, args.what, inside)
        self.security_group_id = group.id
        self.register_outputs({"definition": self.task.definition.arn})


def deployer(
    platform: Platform,
    image: str,
    api: PrefectApi,
    *,
    notify_webhook_secret: str,
    outputs_parameter: str,
    log_group: str,
) -> TaskArgs:
    """The task that registers the stack and deploys its flows, from inside the VPC.

    Args:
        image: the flows' own: it holds prefect.yaml, and what its deployments start from is it.
        api: the Prefect to tell.
        notify_webhook_secret: the ARN of the secret with the webhook's address; empty without one.
        outputs_parameter: where it reads StackOutputs.
    """
    location = platform.location
    secrets = {api.secret_variable: api.secret}
    if notify_webhook_secret:
        secrets["TRAINYARD_NOTIFY_WEBHOOK"] = SecretField(notify_webhook_secret)
    return TaskArgs(
        platform=platform,
        container_name="deployer",
        container=Container(
            image=image,
            command=("python", "-m", "trainyard.prefect", outputs_parameter),
            environment={
                "AWS_DEFAULT_REGION": location.region,
                "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                "PREFECT_API_URL": api.url,
                "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
                "TRAINYARD_IMAGE": image,
            },
            secrets=secrets,
        ),
        size=Size(512, 1024),
        log_group=log_group,
        rights=[
            iam.allow(
                "ReadOutputs",
                "ssm:GetParameter",
                on=[location.arn("ssm", f"parameter{outputs_parameter}")],
            )
        ],
    )


def models(
    image: str,
    api: PrefectApi,
    flows: FlowRunsArgs,
    where: Mapping[str, Input[str]],
    log_group: str,
) -> TaskArgs:
    """The task of `trainyard model`: the flows' own command, with what a flow run has.

    Args:
        image: the flows' own.
        flows: what runs are started with.
        where: the variables by which runs find MLflow and the artifact store.
    """
    return TaskArgs(
        platform=flows.platform,
        container_name="models",
        container=Container(
            image=image,
            command=("python", "-m", "flows.lifecycle", "list"),
            environment={
                **where,
                "AWS_DEFAULT_REGION": flows.platform.location.region,
                "HOME": "/tmp",  # noqa: S108 (the one folder it may write)
                "PREFECT_API_URL": api.url,
                "PREFECT_HOME": "/tmp/prefect",  # noqa: S108
            },
            secrets=flows.secrets,
        ),
        size=Size(1024, 4096),  # as a run: `reproduce` trains
        log_group=log_group,
        rights=rights_of_flows(flows),
    )


def tunnel(platform: Platform, image: str, log_group: str) -> TaskArgs:
    """The task through which Systems Manager forwards ports, for `make ui`.

    It stops by itself after four hours. `image` is any that has `sleep`.
    """
    return TaskArgs(
        platform=platform,
        container_name="tunnel",
        container=Container(
            image=image, command=("sleep", str(TUNNEL_SECONDS)), writable_root=True
        ),
        size=Size(256, 512),
        log_group=log_group,
        rights=[
            iam.anywhere(
                "Tunnel",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            )
        ],
    )
