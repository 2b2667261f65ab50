"""Observability: alarms that say what is wrong, a dashboard to look at, and a topic that tells
people.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from trainyard.contract.naming import Location

# What flows/lifecycle logs.
NEW_CHAMPION = ("is the new champion",)
# What flows/lifecycle/serving.py and serving_models.py log.
REQUEST_FAILED, CHAMPION_REFUSED = ("failed on a request's rows",), ("is not taken",)
# A message that begins so (flows/platform/events.py: DRIFT_LINE): others may speak of drift.
DRIFT = (" - drift of ",)


@dataclass(frozen=True)
class Alarm:
    """One alarm: when `metric` leaves what is normal for `periods` in a row."""

    name: str
    says: str
    namespace: str
    metric: str
    dimensions: Mapping[str, Input[str]]
    above: float | None = None
    below: float | None = None
    statistic: Literal["Average", "Maximum", "Minimum", "Sum"] = "Maximum"
    period: int = 300
    periods: int = 1
    silence: Literal["breaching", "notBreaching", "missing"] = "notBreaching"
    """What no data means: for a heartbeat, trouble; for a count of errors, none."""
    ends: bool = True
    """People are told of its end too."""


@dataclass(frozen=True)
class ObservabilityArgs:
    """Arguments of Observability."""

    location: Location
    stack: str
    emails: Sequence[str]


class Observability(pulumi.ComponentResource):
    """Create the SNS topic of alarms; `count` and `watch` add metrics, alarms and a dashboard.

    The topic comes first so that others can name it.

    Inputs: `stack`; `emails`, which AWS asks to confirm.
    Outputs: `topic_arn`; `namespace`, where the stack's own metrics are.
    Idle cost: 3.00 $ a month for the dashboard and 0.10 $ an alarm: 4.40 to 4.60 $, with served
    models more. A metric that counts log lines is by use.
    """

    topic_arn: Output[str]

    def __init__(self, name: str, args: ObservabilityArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:observability:Observability", name, None, opts)
        inside = ResourceOptions(parent=self)
        self._name, self._args = name, args
        topic = aws.sns.Topic(f"{name}-alarms", display_name=f"Trainyard {args.stack}", opts=inside)
        aws.sns.TopicPolicy(
            f"{name}-alarms",
            arn=topic.arn,
            policy=iam.document(
                *iam.receive_notices(
                    topic.arn, args.location, ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
                )
            ),
            opts=inside,
        )
        for email in args.emails:
            aws.sns.TopicSubscription(
                f"{name}-{email.replace('@', '-at-')}",
                topic=topic.arn,
                protocol="email",
                endpoint=email,
                opts=inside,
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": self.topic_arn})

    def count(self, metric: str, log_group: Input[str], name: str, words: Sequence[str]) -> None:
        """Count the log lines that hold all the words; more logs may add to a metric."""
        aws.cloudwatch.LogMetricFilter(
            f"{self._name}-{name}",
            log_group_name=log_group,
            pattern=" ".join(json.dumps(each) for each in words),
            metric_transformation={
                "namespace": self.namespace,
                "name": metric,
                "value": "1",
            },
            opts=ResourceOptions(parent=self),
        )

    @property
    def namespace(self) -> str:
        """Where the stack's own metrics are."""
        return f"Trainyard/{self._args.stack}"

    def watch(self, alarms: Sequence[Alarm]) -> None:
        """Add alarms, and a dashboard that shows their metrics."""
        for alarm in alarms:
            if (alarm.above is None) == (alarm.below is None):
                raise ValueError(f"{alarm.name}: say either `above` or `below`")
            aws.cloudwatch.MetricAlarm(
                f"{self._name}-{alarm.name}",
                alarm_description=alarm.says,
                namespace=alarm.namespace,
                metric_name=alarm.metric,
                dimensions=alarm.dimensions,
                statistic=alarm.statistic,
                period=alarm.period,
                evaluation_periods=alarm.periods,
                comparison_operator="GreaterThanThreshold"
                if alarm.above is not None
                else "LessThanThreshold",
                threshold=alarm.above if alarm.above is not None else alarm.below,
                treat_missing_data=alarm.silence,
                alarm_actions=[self.topic_arn],
                ok_actions=[self.topic_arn] if alarm.ends else [],
                opts=ResourceOptions(parent=self),
            )
        aws.cloudwatch.Dashboard(
            f"{self._name}-dashboard",
            dashboard_name=f"{self._name}-dashboard",
            dashboard_body=Output.json_dumps(
                {"widgets": [self._widget(i, alarm) for i, alarm in enumerate(alarms)]}
            ),
            opts=ResourceOptions(parent=self),
        )

    def _widget(self, i: int, alarm: Alarm) -> dict[str, Any]:
        dimensions = [part for pair in alarm.dimensions.items() for part in pair]
        limit = alarm.above if alarm.above is not None else alarm.below
        return {
            "type": "metric",
            "x": i % 3 * 8,
            "y": i // 3 * 6,
            "width": 8,
            "height": 6,
            "properties": {
                "title": alarm.says,
                "region": self._args.location.region,
                "metrics": [[alarm.namespace, alarm.metric, *dimensions]],
                "stat": alarm.statistic,
                "period": alarm.period,
                "annotations": {"horizontal": [{"label": "alarm", "value": limit}]},
            },
        }


def service_alarms(
    label: str, service: Input[str], cluster: str, *, insights: bool, running: int
) -> list[Alarm]:
    """Is a service alive? Container Insights counts its tasks; without it, its CPU metric's silence
    tells.
    """
    dimensions = {"ClusterName": cluster, "ServiceName": service}
    if insights:
        return [
            Alarm(
                f"{label}-down",
                f"The {label} runs fewer tasks than it should",
                "ECS/ContainerInsights",
                "RunningTaskCount",
                dimensions,
                below=running,
                statistic="Minimum",
                period=60,
                periods=5,
                silence="breaching",
            )
        ]
    return [
        Alarm(
            f"{label}-down",
            f"The {label} doesn't report: no task of it runs",
            "AWS/ECS",
            "CPUUtilization",
            dimensions,
            below=0,  # never: it is the silence that counts
            period=60,
            periods=5,
            silence="breaching",
        )
    ]


def memory_alarm(label: str, service: Input[str], cluster: str) -> Alarm:
    """A service close to the memory at which it is killed."""
    return Alarm(
        f"{label}-memory",
        f"The {label} uses over 90 % of its memory",
        "AWS/ECS",
        "MemoryUtilization",
        {"ClusterName": cluster, "ServiceName": service},
        above=90,
        statistic="Average",
        periods=3,
    )


def database_alarms(identifier: Input[str], storage_gb: int) -> list[Alarm]:
    """The ways in which a small database ends."""
    dimensions = {"DBInstanceIdentifier": identifier}
    return [
        Alarm(
            "database-disk",
            "The database has less than a tenth of its disk left",
            "AWS/RDS",
            "FreeStorageSpace",
            dimensions,
            below=storage_gb * 1024**3 / 10,
            statistic="Minimum",
            silence="breaching",
        ),
        Alarm(
            "database-cpu",
            "The database's CPU has been over 85 % for a quarter of an hour",
            "AWS/RDS",
            "CPUUtilization",
            dimensions,
            above=85,
            statistic="Average",
            periods=3,
            silence="missing",
        ),
        Alarm(
            "database-connections",
            "The database has more connections than a small instance bears",
            "AWS/RDS",
            "DatabaseConnections",
            dimensions,
            above=70,
            silence="missing",
        ),
    ]


def observer_alarms(queue: Input[str], dead_letters: Input[str], rule: Input[str]) -> list[Alarm]:
    """Crashes go unseen when what ECS says isn't read. Prefect's observer gives up silently, so its
    queue tells.
    """
    return [
        Alarm(
            "observer-late",
            "ECS events wait for over ten minutes: the worker's observer doesn't read them",
            "AWS/SQS",
            "ApproximateAgeOfOldestMessage",
            {"QueueName": queue},
            above=600,
        ),
        Alarm(
            "observer-dead-letters",
            "ECS events were set aside: the worker's observer couldn't digest them",
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            {"QueueName": dead_letters},
            above=0,
        ),
        Alarm(
            "observer-undelivered",
            "EventBridge couldn't hand ECS events to the queue",
            "AWS/Events",
            "FailedInvocations",
            {"RuleName": rule},
            above=0,
            statistic="Sum",
        ),
    ]


def run_alarms(namespace: str) -> list[Alarm]:
    """What becomes of runs, for those who read mail and not Prefect: one message for all runs of a
    minute, and none when it is over.
    """
    says = {
        "RunsFailed": "A flow run failed: Prefect and the log of the flows say why",
        "RunsCrashed": "A flow run's process or task died: Prefect says whether it goes on",
        "Champions": "A model has a new champion: MLflow and Prefect say which",
        "Drift": "A month isn't like what a model was trained on: the log of the flows says how",
    }
    return [_counted(namespace, metric, text) for metric, text in says.items()]


def serving_alarms(namespace: str) -> list[Alarm]:
    """What served models log of failures: which, and why, is in their logs."""
    says = {
        "RequestsFailed": "A served model failed on a request's rows: its server's log says how",
        "ChampionsRefused": "A champion can't be loaded, so an older version is served, or none: "
        "the server's log says why",
    }
    return [_counted(namespace, metric, text) for metric, text in says.items()]


def _counted(namespace: str, metric: str, says: str) -> Alarm:
    return Alarm(
        metric.lower(),
        says,
        namespace,
        metric,
        {},
        above=0,
        statistic="Sum",
        period=60,
        ends=False,
    )
