"""LoadBalancer: HTTPS in front of served models, inside the VPC, with the owner's certificate."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.network import Placement, admit

HTTPS = 443
# TLS 1.2 and 1.3, with forward secrecy.
TLS = "ELBSecurityPolicy-TLS13-1-2-2021-06"
# Names of load balancers and target groups have no room for what Pulumi would add.
LONGEST = 32


@dataclass(frozen=True)
class LoadBalancerArgs:
    """Arguments of LoadBalancer."""

    placement: Placement
    prefix: str
    """What the names of the stack's resources begin with."""
    certificate_arn: str
    domain: str
    from_cidrs: Sequence[str]
    from_security_groups: Sequence[str]


class LoadBalancer(pulumi.ComponentResource):
    """Create an internal application load balancer that answers HTTPS only, a host name a model.

    A model is asked at `<model>.<domain>`; any other name gets 404. The owner's DNS points
    `*.<domain>` at `dns_name`.

    Inputs: `certificate_arn`, of ACM, for `*.<domain>`; `from_cidrs` and `from_security_groups`,
    who reaches it; `placement`.
    Outputs: `dns_name`, `security_group_id`.
    Idle cost: 16.43 $ a month; requests by use, 0.008 $ a capacity unit and hour.
    """

    dns_name: Output[str]
    security_group_id: Output[str]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:serving:LoadBalancer", name, None, opts)
        self._args, inside = args, ResourceOptions(parent=self)
        group = aws.ec2.SecurityGroup(
            f"{name}-access",
            vpc_id=args.placement.vpc_id,
            description="Load balancer of served models",
            tags={"Name": f"{name}-access"},
            opts=inside,
        )
        admit(name, HTTPS, args.from_cidrs, args.from_security_groups, group.id, inside)
        balancer = aws.lb.LoadBalancer(
            f"{name}-balancer",
            name=f"{args.prefix}-serve",
            internal=True,
            load_balancer_type="application",
            subnets=list(args.placement.task_subnet_ids),
            security_groups=[group.id],
            drop_invalid_header_fields=True,
            opts=inside,
        )
        self._listener = aws.lb.Listener(
            f"{name}-https",
            load_balancer_arn=balancer.arn,
            port=HTTPS,
            protocol="HTTPS",
            ssl_policy=TLS,
            certificate_arn=args.certificate_arn,
            default_actions=[
                {
                    "type": "fixed-response",
                    "fixed_response": {
                        "content_type": "application/json",
                        "message_body": '{"detail": "no model has this host name"}',
                        "status_code": "404",
                    },
                }
            ],
            opts=inside,
        )
        self.dns_name, self.security_group_id = balancer.dns_name, group.id
        self.register_outputs({"dns_name": self.dns_name})

    def host(self, model: str) -> str:
        """The name under which a model is asked."""
        return f"{model}.{self._args.domain}"

    def send(self, name: str, model: str, port: int, opts: ResourceOptions) -> Input[str]:
        """Send what is asked of a model to a group of its tasks; gives the group's ARN."""
        group = aws.lb.TargetGroup(
            f"{name}-targets",
            name=f"{self._args.prefix}-{sha256(model.encode()).hexdigest()}"[: LONGEST - 1],
            vpc_id=self._args.placement.vpc_id,
            target_type="ip",
            port=port,
            protocol="HTTP",
            # A task that goes is given this long for what is under way.
            deregistration_delay=25,
            health_check={
                "path": "/health",
                "interval": 10,
                "timeout": 5,
                "healthy_threshold": 2,
                "unhealthy_threshold": 3,
                "matcher": "200",
            },
            opts=opts,
        )
        rule = aws.lb.ListenerRule(
            f"{name}-host",
            listener_arn=self._listener.arn,
            conditions=[{"host_header": {"values": [self.host(model)]}}],
            actions=[{"type": "forward", "target_group_arn": group.arn}],
            opts=opts,
        )
        # After the rule: ECS refuses a group that no listener sends to.
        return Output.all(group.arn, rule.arn).apply(lambda arns: arns[0])
