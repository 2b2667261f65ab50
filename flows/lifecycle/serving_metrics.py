"""What a serving process counts, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class WatchMetrics:
    """Of the version that an alias names.

    Args:
        registry: what they are counted in.
        prefix: of their names.
        what: the version does.
    """

    def __init__(self, registry: CollectorRegistry, prefix: str, what: str) -> None:
        self.registry = registry
        self.version = Gauge(
            f"{prefix}_model_version",
            f"The version that {what}; 0 while there is none.",
            registry=registry,
        )
        self.lag = Gauge(
            f"{prefix}_alias_lag_seconds",
            f"Since the version that {what} was last seen to have the alias. It grows while MLflow "
            "is away and while the alias' version is refused.",
            registry=registry,
        )
        self.refused = Counter(
            f"{prefix}_refused_versions",
            "Times that the alias' version wasn't taken: it doesn't load, or its files aren't "
            "those that were registered.",
            registry=registry,
        )


class Metrics(WatchMetrics):
    """Counters of one process' own."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), "trainyard_serving", "answers")
        self.seconds = Histogram(
            "trainyard_serving_request_seconds",
            "From a request's start to its answer or refusal.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.rows = Counter(
            "trainyard_serving_rows", "Rows that were answered.", registry=self.registry
        )
        self.unanswered = Counter(
            "trainyard_serving_unanswered_rows",
            "Rows that the model has no answer for.",
            registry=self.registry,
        )
        self.errors = Counter(
            "trainyard_serving_errors", "Refused requests.", ["kind"], registry=self.registry
        )
        self.logged = Counter(
            "trainyard_serving_logged_rows",
            "Rows that the request log has, of challengers too.",
            registry=self.registry,
        )
        self.log_dropped = Counter(
            "trainyard_serving_log_dropped_rows",
            "Rows that the request log lacks, because the artifact store is away or too slow.",
            registry=self.registry,
        )

    def page(self) -> bytes:
        return generate_latest(self.registry)


class ShadowMetrics(WatchMetrics):
    """How a challenger answers what the champion has answered, by its version."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "trainyard_shadow", "answers in shadow")
        self.seconds = Histogram(
            "trainyard_shadow_answer_seconds",
            "That the challenger took for a request's rows.",
            ["version"],
            buckets=SECONDS,
            registry=registry,
        )
        self.rows = Counter(
            "trainyard_shadow_rows",
            "Rows that both have answered, or one of them.",
            ["version"],
            registry=registry,
        )
        self.different = Counter(
            "trainyard_shadow_different_rows",
            "Rows whose answer is another one than the champion's.",
            ["version", "answer"],
            registry=registry,
        )
        self.distance = Counter(
            "trainyard_shadow_absolute_difference",
            "Sum over rows of how far the answer, a number, is from the champion's.",
            ["version", "answer"],
            registry=registry,
        )
        self.failed = Counter(
            "trainyard_shadow_failed_rows",
            "Rows of requests that the challenger failed on.",
            ["version"],
            registry=registry,
        )
        self.dropped = Counter(
            "trainyard_shadow_dropped_rows",
            "Rows that the challenger wasn't asked, because it was busy.",
            registry=registry,
        )
