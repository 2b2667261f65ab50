"""EventObserver: what ECS says about this cluster's tasks, in a queue that the worker reads.

That is how a run whose container died without a word becomes Crashed within a second.
"""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam


@dataclass(frozen=True)
class EventObserverArgs:
    """Arguments of EventObserver."""

    queue_name: str
    cluster_arn: Input[str]


class EventObserver(pulumi.ComponentResource):
    """Create the queue of ECS's task events, which the worker reads, and the rule that fills it.

    A message that three reads didn't acknowledge goes to a second queue, for 14 days.

    Inputs: `queue_name`, by which the worker finds it; `cluster_arn`, whose tasks it is about.
    Outputs: `queue_name`, `queue_arn`; for alarms `dead_letter_name`, `rule_name`.
    Idle cost: by use; a million requests a month are free.
    """

    queue_name: str
    queue_arn: Output[str]
    dead_letter_name: Output[str]
    rule_name: Output[str]

    def __init__(self, name: str, args: EventObserverArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:events:EventObserver", name, None, opts)
        inside = ResourceOptions(parent=self)
        dead = aws.sqs.Queue(
            f"{name}-dead-letters",
            message_retention_seconds=14 * 24 * 3600,
            sqs_managed_sse_enabled=True,
            opts=inside,
        )
        queue = aws.sqs.Queue(
            f"{name}-queue",
            name=args.queue_name,  # the worker knows it by this name
            visibility_timeout_seconds=300,  # Prefect's observer prolongs it while it works
            message_retention_seconds=7 * 24 * 3600,
            sqs_managed_sse_enabled=True,
            redrive_policy=Output.json_dumps(
                {"deadLetterTargetArn": dead.arn, "maxReceiveCount": 3}
            ),
            opts=inside,
        )
        rule = aws.cloudwatch.EventRule(
            f"{name}-rule",
            description="Tasks of this cluster start and stop",
            event_pattern=Output.json_dumps(
                {
                    "source": ["aws.ecs"],
                    "detail-type": ["ECS Task State Change"],
                    "detail": {"clusterArn": [args.cluster_arn]},
                }
            ),
            opts=inside,
        )
        policies = [
            aws.sqs.QueuePolicy(
                f"{name}-{part}",
                queue_url=each.url,
                policy=iam.document(
                    iam.receive_from("events.amazonaws.com", "sqs:SendMessage", each.arn, rule.arn)
                ),
                opts=inside,
            )
            for part, each in (("queue", queue), ("dead-letters", dead))
        ]
        aws.cloudwatch.EventTarget(
            f"{name}-target",
            rule=rule.name,
            arn=queue.arn,
            dead_letter_config={"arn": dead.arn},
            # Later than this, the heartbeat automation has long reported the run.
            retry_policy={"maximum_event_age_in_seconds": 3600, "maximum_retry_attempts": 20},
            opts=ResourceOptions(parent=self, depends_on=policies),
        )
        self.queue_name, self.queue_arn = args.queue_name, queue.arn
        self.dead_letter_name, self.rule_name = dead.name, rule.name
        self.register_outputs({"queue_arn": self.queue_arn})
