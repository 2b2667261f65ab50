"""What a serving process counts, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """Counters of one process' own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.version = Gauge(
            "trainyard_serving_model_version",
            "The version that answers; 0 while there is none.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "trainyard_serving_alias_lag_seconds",
            "Since the version that answers was last seen to have the alias. It grows while MLflow "
            "is away and while the alias' version is refused.",
            registry=self.registry,
        )
        self.refused = Counter(
            "trainyard_serving_refused_versions",
            "Times that the alias' version wasn't taken: it doesn't load, or its files aren't "
            "those that were registered.",
            registry=self.registry,
        )

    def page(self) -> bytes:
        return generate_latest(self.registry)
