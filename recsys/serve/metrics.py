"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_TOKENS = (16, 64, 256, 1024, 4096, 16384)


class ServiceMetrics:
    """The figures of one service; labels hold paths and codes, never what users sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "recsys_requests", "Requests answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "recsys_request_seconds",
            "From the head of a request to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_work = Gauge("recsys_requests_in_work", "Requests in work", registry=self.registry)
        self.queue = Gauge("recsys_queue", "Queries that wait", registry=self.registry)
        self.batch = Histogram(
            "recsys_batch_queries", "Queries a batch", buckets=_SIZES, registry=self.registry
        )
        self.tokens = Histogram(
            "recsys_batch_tokens", "Tokens a batch", buckets=_TOKENS, registry=self.registry
        )
        self.events = Counter("recsys_feedback_events", "Events kept", registry=self.registry)
        self.reloads = Counter(
            "recsys_reloads", "Attempts to load a model anew", ["outcome"], registry=self.registry
        )
        self.version = Gauge("recsys_model_version", "Models loaded", registry=self.registry)

    def observe_batch(self, queries: int, tokens: int) -> None:
        """Notes a batch."""
        self.batch.observe(queries)
        self.tokens.observe(tokens)

    def format(self) -> bytes:
        """The text that is scraped."""
        return generate_latest(self.registry)
