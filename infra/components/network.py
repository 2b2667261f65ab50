"""Network: a VPC of the stack's own, or an existing one, as the place where tasks and the database
live.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from trainyard.contract.naming import Location

# What tasks call beside S3 (which has its gateway): with these, they reach AWS without a way to the
# internet.
INTERFACE_ENDPOINTS = ("ecr.api", "ecr.dkr", "ecs", "logs", "secretsmanager", "sqs", "ssm", "sts")


@dataclass(frozen=True)
class Placement:
    """Where things run: what the other components need to know of a network."""

    vpc_id: Input[str]
    task_subnet_ids: tuple[Input[str], ...]
    database_subnet_ids: tuple[Input[str], ...]
    public_addresses: bool
    """Tasks get public addresses: they live in public subnets, where nothing else leads out."""


@dataclass(frozen=True)
class NetworkArgs:
    """Arguments of Network."""

    location: Location
    cidr: str
    zones: tuple[str, ...]
    nat_gateways: int
    interface_endpoints: bool
    flow_log_group: str
    flow_log_days: int | None
    """None: no flow logs."""
    permissions_boundary: str


def subnet_cidrs(cidr: str, zones: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The public and private ranges of each zone: sixteenths of the VPC, private ones from the
    upper half.
    """
    if not 2 <= zones <= 3:
        raise ValueError("a network spans 2 or 3 zones")
    parts = [str(part) for part in IPv4Network(cidr).subnets(prefixlen_diff=4)]
    return tuple(parts[:zones]), tuple(parts[8 : 8 + zones])


class Network(pulumi.ComponentResource):
    """Create a VPC that lets nothing in, with public and private subnets in each zone.

    S3 is reached by a gateway endpoint, which is free.

    Inputs: `cidr`, `zones`; `nat_gateways`, without which tasks live in public subnets;
    `interface_endpoints` to reach AWS without the internet; `flow_log_days`, or None for no logs.
    Outputs: `placement`, where tasks and the database live.
    Idle cost: free without a NAT gateway; each is 36.50 $ a month. Interface endpoints are 58.40 $
    a zone.
    """

    placement: Placement

    def __init__(self, name: str, args: NetworkArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:network:Network", name, None, opts)
        if args.nat_gateways not in (0, 1, len(args.zones)):
            raise ValueError("a network has no NAT gateway, one, or one in each zone")
        inside = ResourceOptions(parent=self)
        public_cidrs, private_cidrs = subnet_cidrs(args.cidr, len(args.zones))
        self.vpc = self._closed_vpc(name, args.cidr)
        gateway = aws.ec2.InternetGateway(
            f"{name}-internet", vpc_id=self.vpc.id, tags={"Name": f"{name}-internet"}, opts=inside
        )
        public_routes = self._routes(f"{name}-public")
        aws.ec2.Route(
            f"{name}-public-out",
            route_table_id=public_routes.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=inside,
        )
        public, nats, private, route_tables = [], [], [], [public_routes]
        for i, zone in enumerate(args.zones):
            subnet = self._subnet(f"{name}-public-{i}", zone, public_cidrs[i], public_routes)
            public.append(subnet)
            if i < args.nat_gateways:
                nats.append(self._nat(f"{name}-nat-{i}", subnet, gateway))
        for i, zone in enumerate(args.zones):
            routes = self._routes(f"{name}-private-{i}")
            route_tables.append(routes)
            if nats:
                aws.ec2.Route(
                    f"{name}-private-{i}-out",
                    route_table_id=routes.id,
                    destination_cidr_block="0.0.0.0/0",
                    nat_gateway_id=nats[i % len(nats)].id,
                    opts=inside,
                )
            private.append(self._subnet(f"{name}-private-{i}", zone, private_cidrs[i], routes))
        self._s3_endpoint(f"{name}-s3", args.location.region, route_tables)
        private_ids = tuple(subnet.id for subnet in private)
        if args.interface_endpoints:
            self._interface_endpoints(name, args, private_ids)
        if args.flow_log_days is not None:
            self._flow_logs(name, args, args.flow_log_days)
        behind_nat = args.nat_gateways > 0 or args.interface_endpoints
        self.placement = Placement(
            vpc_id=self.vpc.id,
            task_subnet_ids=private_ids if behind_nat else tuple(s.id for s in public),
            database_subnet_ids=private_ids,
            public_addresses=not behind_nat,
        )
        self.register_outputs({"vpc_id": self.vpc.id})

    def _closed_vpc(self, name: str, cidr: str) -> aws.ec2.Vpc:
        inside = ResourceOptions(parent=self)
        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=cidr,
            enable_dns_hostnames=True,  # Cloud Map and private endpoints need both
            enable_dns_support=True,
            tags={"Name": f"{name}-vpc"},
            opts=inside,
        )
        # Whatever forgets to name a security group gets one that lets nothing through.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-default",
            vpc_id=vpc.id,
            ingress=[],
            egress=[],
            tags={"Name": f"{name}-default-closed"},
            opts=inside,
        )
        return vpc

    def _nat(
        self, name: str, subnet: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.NatGateway:
        tags: dict[str, Input[str]] = {"Name": name}
        address = aws.ec2.Eip(name, domain="vpc", tags=tags, opts=ResourceOptions(parent=self))
        return aws.ec2.NatGateway(
            name,
            subnet_id=subnet.id,
            allocation_id=address.id,
            tags=tags,
            opts=ResourceOptions(parent=self, depends_on=[gateway]),
        )

    def _s3_endpoint(
        self, name: str, region: str, route_tables: Sequence[aws.ec2.RouteTable]
    ) -> None:
        # Free, and it keeps the heaviest traffic off the NAT.
        aws.ec2.VpcEndpoint(
            name,
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in route_tables],
            tags={"Name": name},
            opts=ResourceOptions(parent=self),
        )

    def _routes(self, name: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            name, vpc_id=self.vpc.id, tags={"Name": name}, opts=ResourceOptions(parent=self)
        )

    def _subnet(
        self, name: str, zone: str, cidr: str, routes: aws.ec2.RouteTable
    ) -> aws.ec2.Subnet:
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=self.vpc.id,
            availability_zone=zone,
            cidr_block=cidr,
            # An address is each task's own choice, never the subnet's.
            map_public_ip_on_launch=False,
            tags={"Name": name},
            opts=ResourceOptions(parent=self),
        )
        aws.ec2.RouteTableAssociation(
            name,
            subnet_id=subnet.id,
            route_table_id=routes.id,
            opts=ResourceOptions(parent=self),
        )
        return subnet

    def _interface_endpoints(
        self, name: str, args: NetworkArgs, subnet_ids: tuple[Output[str], ...]
    ) -> None:
        inside = ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            f"{name}-endpoints",
            vpc_id=self.vpc.id,
            description="Private ways to AWS services",
            opts=inside,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-endpoints-https",
            security_group_id=group.id,
            description="HTTPS from inside the VPC",
            cidr_ipv4=args.cidr,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=inside,
        )
        for service in INTERFACE_ENDPOINTS:
            aws.ec2.VpcEndpoint(
                f"{name}-{service.replace('.', '-')}",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{args.location.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=list(subnet_ids),
                security_group_ids=[group.id],
                tags={"Name": f"{name}-{service}"},
                opts=inside,
            )

    def _flow_logs(self, name: str, args: NetworkArgs, days: int) -> None:
        inside = ResourceOptions(parent=self)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-flow-logs", name=args.flow_log_group, retention_in_days=days, opts=inside
        )
        role = aws.iam.Role(
            f"{name}-flow-logs",
            assume_role_policy=iam.trusted_service("vpc-flow-logs.amazonaws.com", args.location),
            permissions_boundary=args.permissions_boundary,
            opts=inside,
        )
        policy = aws.iam.RolePolicy(
            f"{name}-flow-logs",
            role=role.id,
            policy=iam.document(iam.write_logs(logs.arn)),
            opts=inside,
        )
        aws.ec2.FlowLog(
            f"{name}-flow-logs",
            vpc_id=self.vpc.id,
            traffic_type="ALL",
            log_destination=logs.arn,
            iam_role_arn=role.arn,
            opts=ResourceOptions(parent=self, depends_on=[policy]),
        )


def open_port(
    name: str,
    port: int,
    *,
    what: str,
    source: Input[str],
    target: Input[str],
    opts: ResourceOptions,
) -> None:
    """Let the members of one security group reach a port of another's: out of the one, into the
    other.
    """
    aws.vpc.SecurityGroupEgressRule(
        f"{name}-out",
        security_group_id=source,
        referenced_security_group_id=target,
        description=f"To {what}",
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        opts=opts,
    )
    aws.vpc.SecurityGroupIngressRule(
        f"{name}-in",
        security_group_id=target,
        referenced_security_group_id=source,
        description=f"{what} from {name}",
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        opts=opts,
    )


def admit(
    name: str,
    port: int,
    cidrs: Sequence[str],
    security_groups: Sequence[str],
    target: Input[str],
    opts: ResourceOptions,
) -> None:
    """Let networks, and members of others' security groups, reach a port of a security group's."""
    for source in (*cidrs, *security_groups):
        of_group = source.startswith("sg-")
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-from-{source.replace('/', '-')}",
            security_group_id=target,
            cidr_ipv4=None if of_group else source,
            referenced_security_group_id=source if of_group else None,
            description=f"{name} from {source}",
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            opts=opts,
        )


def task_security_group(
    name: str, vpc_id: Input[str], what: str, opts: ResourceOptions
) -> aws.ec2.SecurityGroup:
    """A security group for tasks: HTTPS out (AWS, Prefect Cloud, data sources), nothing else and
    nothing in.
    """
    group = aws.ec2.SecurityGroup(
        name, vpc_id=vpc_id, description=what, tags={"Name": name}, opts=opts
    )
    aws.vpc.SecurityGroupEgressRule(
        f"{name}-https",
        security_group_id=group.id,
        description="HTTPS to AWS, Prefect and data sources",
        cidr_ipv4="0.0.0.0/0",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        opts=opts,
    )
    return group
