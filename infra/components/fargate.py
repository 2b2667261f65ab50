"""Fargate tasks and services as all of ours are: read-only root, not root, logged, healed, rolled
back.

A component that runs something says what and with which rights; how it is kept safe is said here,
once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from infra.components.network import Placement, task_security_group
from infra.components.secret import SecretField
from trainyard.contract.containers import SCRATCH_VOLUME, logged, read_only, without_privileges
from trainyard.contract.fargate_sizes import Size
from trainyard.contract.naming import Location

# Stands where an image isn't known yet: nothing can start from it, and nothing is asked to.
NO_IMAGE = "image-not-set"


@dataclass(frozen=True)
class Container:
    """What a task runs."""

    image: str
    command: tuple[Input[str], ...]
    environment: Mapping[str, Input[str]] = field(default_factory=dict)
    secrets: Mapping[str, SecretField] = field(default_factory=dict)
    port: int | None = None
    health_path: str | None = None
    """Asked from inside the container, so it opens no port to anyone."""
    health_port: int | None = None
    slow_start_seconds: int = 60
    stop_seconds: int = 30
    writable_root: bool = False
    """Weakens the container; only the tunnel needs it (the agent of ECS Exec writes into its root).
    """

    def definition(self, name: str, log_group: Input[str], region: str) -> dict[str, Any]:
        """The container as ECS reads it. Lists are sorted: ECS does so too, and would differ
        otherwise.
        """
        out: dict[str, Any] = {
            "name": name,
            "image": self.image or NO_IMAGE,
            "essential": True,
            "command": list(self.command),
            "environment": [{"name": k, "value": v} for k, v in sorted(self.environment.items())],
            "secrets": [
                {"name": k, "valueFrom": v.value_from} for k, v in sorted(self.secrets.items())
            ],
            "stopTimeout": self.stop_seconds,
            **without_privileges(),
            **logged(log_group, region, name),
        }
        if not self.writable_root:
            out |= read_only()
        if self.port:
            out["portMappings"] = [
                {"containerPort": self.port, "hostPort": self.port, "protocol": "tcp"}
            ]
        if self.health_path:
            url = f"http://127.0.0.1:{self.health_port or self.port}{self.health_path}"
            out["healthCheck"] = {
                # The images have Python, and no curl.
                "command": [
                    "CMD",
                    "python",
                    "-c",
                    f"import urllib.request as r; r.urlopen('{url}', timeout=4)",
                ],
                "interval": 15,
                "timeout": 5,
                "retries": 4,
                "startPeriod": self.slow_start_seconds,
            }
        return out


@dataclass(frozen=True)
class Platform:
    """What every task of a stack has in common."""

    location: Location
    architecture: str
    log_days: int
    permissions_boundary: str
    image_account: str


@dataclass(frozen=True)
class TaskArgs:
    """Arguments of Task."""

    platform: Platform
    container_name: str
    container: Container
    size: Size
    log_group: str
    rights: Sequence[iam.Statement] = ()
    """What the program in the container may call."""


class Task(pulumi.ComponentResource):
    """Create a Fargate task definition, its log group, and the roles that start it and run it.

    Inputs: `container` (image, command, environment, secrets), `size`, `log_group`; `rights`, what
    the program in it may call; `platform`, which is the same for all tasks of a stack.
    Outputs: `definition`, `log_group_name`.
    Idle cost: free; logs by use, 0.50 $ a GB.
    """

    definition: aws.ecs.TaskDefinition
    log_group_name: Output[str]

    def __init__(self, name: str, args: TaskArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:compute:Task", name, None, opts)
        inside = ResourceOptions(parent=self)
        location = args.platform.location
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=args.log_group,
            retention_in_days=args.platform.log_days,
            opts=inside,
        )
        execution, started = task_role(
            f"{name}-execution", args.platform, execution_rights(args, logs.arn), self
        )
        role, allowed = task_role(f"{name}-task", args.platform, args.rights, self)
        container = args.container.definition(args.container_name, logs.name, location.region)
        self.definition = aws.ecs.TaskDefinition(
            f"{name}-definition",
            family=name,
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(args.size.cpu),
            memory=str(args.size.memory),
            runtime_platform={
                "operating_system_family": "LINUX",
                "cpu_architecture": args.platform.architecture.upper(),
            },
            execution_role_arn=execution.arn,
            task_role_arn=role.arn,
            container_definitions=Output.json_dumps([container]),
            volumes=[] if args.container.writable_root else [{"name": SCRATCH_VOLUME}],
            # Old revisions stay: the circuit breaker rolls back to them.
            skip_destroy=True,
            # A role without its policy yet would fail the first start.
            opts=ResourceOptions(parent=self, depends_on=[*started, *allowed]),
        )
        self.log_group_name = logs.name
        self.register_outputs({"definition": self.definition.arn})


def execution_rights(args: TaskArgs, log_group_arn: Input[str]) -> list[iam.Statement]:
    """What ECS may do to start a task: pull its image, write its log, read the secrets that it
    names.
    """
    platform = args.platform
    rights = [
        *iam.pull_images(platform.location, platform.image_account),
        iam.write_logs(log_group_arn),
    ]
    arns = list({id(s.arn): s.arn for s in args.container.secrets.values()}.values())
    if arns:
        rights.append(iam.allow("ReadSecrets", "secretsmanager:GetSecretValue", on=arns))
    return rights


def task_role(
    name: str, platform: Platform, rights: Sequence[iam.Statement], parent: pulumi.Resource
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    """A role that ECS tasks take, and what must exist before it is used."""
    inside = ResourceOptions(parent=parent)
    role = aws.iam.Role(
        name,
        assume_role_policy=iam.trusted_service("ecs-tasks.amazonaws.com", platform.location),
        permissions_boundary=platform.permissions_boundary,
        opts=inside,
    )
    if not rights:
        return role, []
    policy = aws.iam.RolePolicy(name, role=role.id, policy=iam.document(*rights), opts=inside)
    return role, [policy]


@dataclass(frozen=True)
class ServiceArgs:
    """Arguments of Service."""

    task: TaskArgs
    cluster_arn: Input[str]
    placement: Placement
    count: int
    spot: bool
    what: str
    namespace_id: Input[str] | None = None
    dns_name: str | None = None
    """Its name in the stack's private DNS zone; None where nobody calls it."""
    waits: bool = True
    """`up` ends when the new version runs, or fails with the old one running."""
    scaled: bool = False
    """Autoscaling changes the count, so `up` doesn't."""
    target_group_arn: Input[str] | None = None
    """Where a load balancer finds its tasks."""


class Service(pulumi.ComponentResource):
    """Create an ECS service that keeps `count` copies of a task running, with a security group.

    A new version replaces the old once it runs, and is rolled back if it doesn't start.

    Inputs: `task`, `cluster_arn`, `placement`, `count`; `spot` for Fargate Spot; `dns_name` in the
    zone `namespace_id` where others call it.
    Outputs: `service_name`, `security_group_id` (nothing in, HTTPS out), `task`.
    Idle cost: `count` tasks. 0.25 vCPU and 1 GB are 10.63 $ a month, 6.95 on Spot with a public
    address.
    """

    security_group_id: Output[str]
    service_name: Output[str]
    task: Task

    def __init__(self, name: str, args: ServiceArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:compute:Service", name, None, opts)
        inside = ResourceOptions(parent=self)
        self.task = Task(name, args.task, opts=inside)
        group = task_security_group(f"{name}-access", args.placement.vpc_id, args.what, inside)
        self.security_group_id = group.id
        balanced = args.target_group_arn is not None
        service = aws.ecs.Service(
            f"{name}-service",
            cluster=args.cluster_arn,
            task_definition=self.task.definition.arn,
            desired_count=args.count,
            capacity_provider_strategies=[
                {
                    "capacity_provider": "FARGATE_SPOT" if args.spot else "FARGATE",
                    "weight": 1,
                    "base": 0,  # unsaid, the first `make drift` would tell of it
                }
            ],
            platform_version="LATEST",
            network_configuration={
                "subnets": list(args.placement.task_subnet_ids),
                "security_groups": [group.id],
                "assign_public_ip": args.placement.public_addresses,
            },
            service_registries=self._named(name, args),
            load_balancers=[_target(args)] if balanced else None,
            health_check_grace_period_seconds=args.task.container.slow_start_seconds
            if balanced
            else None,
            # The new one runs before the old one goes.
            deployment_minimum_healthy_percent=100,
            deployment_maximum_percent=200,
            deployment_circuit_breaker={"enable": True, "rollback": True},
            wait_for_steady_state=args.waits and args.count > 0,
            enable_execute_command=False,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            opts=ResourceOptions(
                parent=self, ignore_changes=["desiredCount"] if args.scaled else None
            ),
        )
        self.service_name = service.name
        self.register_outputs({"service_name": self.service_name})

    def _named(self, name: str, args: ServiceArgs) -> aws.ecs.ServiceServiceRegistriesArgs | None:
        if not args.dns_name or args.namespace_id is None:
            return None
        entry = aws.servicediscovery.Service(
            f"{name}-name",
            name=args.dns_name,
            namespace_id=args.namespace_id,
            dns_config={
                "namespace_id": args.namespace_id,
                "dns_records": [{"type": "A", "ttl": 10}],
                "routing_policy": "MULTIVALUE",
            },
            # ECS itself reports what is healthy.
            health_check_custom_config={"failure_threshold": 1},
            opts=ResourceOptions(parent=self),
        )
        return aws.ecs.ServiceServiceRegistriesArgs(registry_arn=entry.arn)


def _target(args: ServiceArgs) -> aws.ecs.ServiceLoadBalancerArgs:
    port = args.task.container.port
    if port is None or args.target_group_arn is None:
        raise ValueError(f"{args.what}: a load balancer needs a port and a target group")
    return aws.ecs.ServiceLoadBalancerArgs(
        target_group_arn=args.target_group_arn,
        container_name=args.task.container_name,
        container_port=port,
    )
