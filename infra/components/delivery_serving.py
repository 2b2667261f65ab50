"""What the role that deploys may do for served models: their load balancer, and their count."""

from infra.components import iam
from trainyard.contract.naming import OWN, Location


def manage_serving(at: Location) -> list[iam.Statement]:
    """Trainyard's load balancers, by their names; and autoscaling, which has no names, of ECS."""
    kinds = ("listener-rule/app", "listener/app", "loadbalancer/app", "targetgroup")
    targets = [at.arn("application-autoscaling", "scalable-target/*")]
    return [
        iam.allow(
            "LoadBalancers",
            "elasticloadbalancing:AddTags",
            "elasticloadbalancing:CreateListener",
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:CreateRule",
            "elasticloadbalancing:CreateTargetGroup",
            "elasticloadbalancing:DeleteListener",
            "elasticloadbalancing:DeleteLoadBalancer",
            "elasticloadbalancing:DeleteRule",
            "elasticloadbalancing:DeleteTargetGroup",
            "elasticloadbalancing:ModifyListener",
            "elasticloadbalancing:ModifyListenerAttributes",
            "elasticloadbalancing:ModifyLoadBalancerAttributes",
            "elasticloadbalancing:ModifyRule",
            "elasticloadbalancing:ModifyTargetGroup",
            "elasticloadbalancing:ModifyTargetGroupAttributes",
            "elasticloadbalancing:RemoveTags",
            "elasticloadbalancing:SetSecurityGroups",
            "elasticloadbalancing:SetSubnets",
            on=[at.arn("elasticloadbalancing", f"{kind}/{OWN}") for kind in kinds],
        ),
        iam.allow(
            "Scaling",
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
            on=targets,
            when={"StringEquals": {"application-autoscaling:service-namespace": "ecs"}},
        ),
        iam.allow(
            "ScalingTags",
            "application-autoscaling:TagResource",
            "application-autoscaling:UntagResource",
            on=targets,
        ),
        # A target-tracking policy makes its alarms, by names of AWS's.
        iam.allow(
            "ScalingAlarms",
            "cloudwatch:DeleteAlarms",
            "cloudwatch:PutMetricAlarm",
            on=[at.arn("cloudwatch", f"alarm:TargetTracking-service/{OWN}")],
        ),
    ]
