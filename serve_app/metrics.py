"""What the application counts. Names here lack Ray's prefix; `/metrics` on the service removes it."""

from collections.abc import Mapping
from typing import Protocol

STAGE_BUCKETS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]
LATENCY_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]


class Metrics(Protocol):
    """Counts without failing: a metric is never worth a request."""

    def request(self, route: str, status: int, cache: str, duration_s: float, first_byte_s: float | None) -> None:
        """One finished request. `cache`: `exact`, `semantic`, `miss`, `bypass`, or empty."""

    def cache(self, tier: str, outcome: str) -> None:
        """One lookup. `outcome`: `hit`, or the reason of the miss."""

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Times of the stages of one semantic decision."""

    def operation(self, what: str, outcome: str) -> None:
        """What became of work around the cache: a `flight`, a label that was to be learnt (`learn`, `audit`), a `renewal`."""

    def write_skipped(self, reason: str) -> None:
        """An answer that could have been kept was not."""

    def disconnected(self, route: str) -> None:
        """A client left before its answer was complete."""


class RayMetrics:
    """Exported by Ray's agent on each node. To be made inside a replica."""

    def __init__(self) -> None:
        from ray.serve.metrics import Counter, Histogram

        self._requests = Counter("mygo_requests", "Finished HTTP requests.", tag_keys=("path", "status", "cache"))
        self._duration = Histogram(
            "mygo_request_duration_seconds", "From the request's arrival to the last byte.", LATENCY_BUCKETS_S, tag_keys=("path", "cache")
        )
        self._first_byte = Histogram(
            "mygo_time_to_first_byte_seconds",
            "From the request's arrival to the first byte.",
            LATENCY_BUCKETS_S,
            tag_keys=("path", "cache"),
        )
        self._cache = Counter("mygo_cache_lookups", "Cache lookups by tier and outcome.", tag_keys=("tier", "outcome"))
        self._stages = Histogram("mygo_cache_stage_seconds", "Stages of the semantic decision.", STAGE_BUCKETS_S, tag_keys=("stage",))
        self._operations = Counter("mygo_cache_operations", "Flights, labels and renewals by outcome.", tag_keys=("what", "outcome"))
        self._skipped = Counter("mygo_cache_writes_skipped", "Answers that were not kept, by reason.", tag_keys=("reason",))
        self._disconnected = Counter("mygo_client_disconnects", "Clients that left before the end.", tag_keys=("path",))

    def request(self, route: str, status: int, cache: str, duration_s: float, first_byte_s: float | None) -> None:
        self._requests.inc(tags={"path": route, "status": str(status), "cache": cache})
        self._duration.observe(duration_s, tags={"path": route, "cache": cache})
        if first_byte_s is not None:
            self._first_byte.observe(first_byte_s, tags={"path": route, "cache": cache})

    def cache(self, tier: str, outcome: str) -> None:
        self._cache.inc(tags={"tier": tier, "outcome": outcome})

    def stages(self, seconds: Mapping[str, float]) -> None:
        for stage, each in seconds.items():
            self._stages.observe(each, tags={"stage": stage})

    def operation(self, what: str, outcome: str) -> None:
        self._operations.inc(tags={"what": what, "outcome": outcome})

    def write_skipped(self, reason: str) -> None:
        self._skipped.inc(tags={"reason": reason})

    def disconnected(self, route: str) -> None:
        self._disconnected.inc(tags={"path": route})
