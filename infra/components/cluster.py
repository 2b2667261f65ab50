"""Cluster: where tasks run, and the private names under which servers are found."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions


@dataclass(frozen=True)
class ClusterArgs:
    """Arguments of Cluster."""

    cluster_name: str
    container_insights: bool
    vpc_id: Input[str]
    namespace: str | None
    """The private DNS zone; None where the stack has no servers."""


class Cluster(pulumi.ComponentResource):
    """Create the ECS cluster, on Fargate and Fargate Spot, and the servers' private DNS zone.

    Inputs: `cluster_name`; `container_insights`; `namespace`, the zone's name in the VPC `vpc_id`,
    or None for no zone.
    Outputs: `cluster_name`, `arn`, and `namespace_id`, which is None without a zone.
    Idle cost: 0.50 $ a month for the zone; with Container Insights 2.40 $ a service.
    """

    cluster_name: str
    """Known before the cluster exists: policies are written with it."""
    arn: Output[str]
    namespace_id: Output[str] | None

    def __init__(self, name: str, args: ClusterArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:compute:Cluster", name, None, opts)
        inside = ResourceOptions(parent=self)
        cluster = aws.ecs.Cluster(
            f"{name}-cluster",
            name=args.cluster_name,
            settings=[
                {
                    "name": "containerInsights",
                    "value": "enabled" if args.container_insights else "disabled",
                }
            ],
            opts=inside,
        )
        aws.ecs.ClusterCapacityProviders(
            f"{name}-capacity",
            cluster_name=cluster.name,
            capacity_providers=["FARGATE", "FARGATE_SPOT"],
            default_capacity_provider_strategies=[{"capacity_provider": "FARGATE", "weight": 1}],
            opts=inside,
        )
        self.cluster_name, self.arn, self.namespace_id = args.cluster_name, cluster.arn, None
        if args.namespace:
            self.namespace_id = aws.servicediscovery.PrivateDnsNamespace(
                f"{name}-names",
                name=args.namespace,
                vpc=args.vpc_id,
                description="Where tasks find the stack's servers",
                opts=inside,
            ).id
        self.register_outputs({"arn": self.arn})
