"""What the application counts. Names here lack Ray's prefix; `/metrics` on the service removes it."""

import asyncio
import collections
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.watchers import RoutingWatcher

EXPORT_S = 0.1
MAX_OBSERVED = 256
"""Gathered values of histograms; then they are given to Ray at once: more would hold up requests for milliseconds."""

STAGE_BUCKETS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]
DISPLACEMENT_BUCKETS = [0.5, 1.5, 2.5, 3.5, 4.5, 8.5, 16.5]  # Ray takes no 0
LATENCY_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]
SUMS = "Its _sum is made of the middles of buckets: use quantiles."
"""Ray's agent is given what was observed, but exports so."""


class Metrics(RoutingWatcher, Protocol):
    """Counts without failing: a metric is never worth a request."""

    def request(self, route: str, status: int, cache: str, duration_s: float, first_byte_s: float | None) -> None:
        """One finished request. `cache`: `exact`, `semantic`, `miss`, `bypass`, or empty."""

    def cache(self, tier: str, outcome: str) -> None:
        """One lookup. `outcome`: `hit`, or the reason of the miss."""

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Times of stages of one look-up: of the semantic decision, and of what the ingress waits for (`ask_store` and so on)."""

    def operation(self, what: str, outcome: str) -> None:
        """What became of work around the cache: a `flight`, a label that was to be learnt (`learn`, `audit`), a `renewal`, and of
        a text that a model judged (`moderation`)."""

    def write_skipped(self, reason: str) -> None:
        """An answer that could have been kept was not."""

    def content(self, rule: str, action: str, times: int = 1) -> None:
        """A content rule was acted on. `rule`: its name in the configuration."""

    def disconnected(self, route: str) -> None:
        """A client left before its answer was complete."""


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """One of Ray's metrics, and the names of its tags: Ray adds some of its own."""

    metric: Any
    keys: tuple[str, ...]


class RayMetrics:
    """Exported by Ray's agent on each node. To be made inside a replica; belongs to its event loop.

    Gathered for a moment: each of Ray's calls takes microseconds, and several together less than as many alone.
    """

    def __init__(self) -> None:
        from ray.serve.metrics import Counter, Gauge, Histogram

        def counter(name: str, description: str, *keys: str) -> _Family:
            return _Family(Counter(name, description, tag_keys=keys), keys)

        def histogram(name: str, description: str, buckets: list[float], *keys: str) -> _Family:
            return _Family(Histogram(name, f"{description} {SUMS}", buckets, tag_keys=keys), keys)

        self._requests = counter("mygo_requests", "Finished HTTP requests.", "path", "status", "cache")
        self._duration = histogram(
            "mygo_request_duration_seconds", "From the request's arrival to the last byte.", LATENCY_BUCKETS_S, "path", "cache"
        )
        self._first_byte = histogram(
            "mygo_time_to_first_byte_seconds", "From the request's arrival to the first byte.", LATENCY_BUCKETS_S, "path", "cache"
        )
        self._cache = counter("mygo_cache_lookups", "Cache lookups by tier and outcome.", "tier", "outcome")
        self._stages = histogram("mygo_cache_stage_seconds", "Stages of a cache look-up.", STAGE_BUCKETS_S, "stage")
        self._operations = counter("mygo_cache_operations", "Flights, labels, renewals and moderation by outcome.", "what", "outcome")
        self._skipped = counter("mygo_cache_writes_skipped", "Answers that were not kept, by reason.", "reason")
        self._content = counter("mygo_content_matches", "Matches of content rules that were acted on.", "rule", "action")
        self._disconnected = counter("mygo_client_disconnects", "Clients that left before the end.", "path")
        self._predictions = counter("mygo_prefix_predictions", "Requests whose cached tokens were predicted, by outcome.", "outcome")
        self._prefix_tokens = counter(
            "mygo_prefix_tokens",
            "Prompt tokens of such requests (prompt), those that the engine found in its cache (cached), those that were predicted "
            "(predicted), and the absolute difference of the last two (error).",
            "kind",
        )
        self._planned = histogram(
            "mygo_document_displacement", "The most places that a document of a chat was from its rank.", DISPLACEMENT_BUCKETS
        )
        self._head_starts = counter(
            "mygo_head_start_tokens", "Tokens prefilled while their documents were searched for, by use: used, wasted.", "use"
        )
        self._kept = counter(
            "mygo_context_events", "Of kept contexts: placed, moved, lost, full, used (before eviction), and blocks recomputed.", "event"
        )
        self._trust = Gauge("mygo_prefix_trusted", "1 while requests go by predictions of cached tokens, 0 while these are too far off.")
        self._is_trusted = True
        self._opened = counter(
            "mygo_replica_circuit_opened",
            "Circuits of replicas that opened, by the last failure: refused, lost, first_token, between_tokens.",
            "reason",
        )
        self._circuit_states = Gauge(
            "mygo_replica_circuit_state", "Replicas by the state of their circuit: closed, open, half_open.", tag_keys=("state",)
        )
        self.circuits: Callable[[], Mapping[str, int]] = dict
        """How many replicas are in each state."""
        self._counts: collections.Counter[tuple[_Family, tuple[str, ...]]] = collections.Counter()
        self._observed: list[tuple[_Family, float, tuple[str, ...]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(self, route: str, status: int, cache: str, duration_s: float, first_byte_s: float | None) -> None:
        self._observed.append((self._duration, duration_s, (route, cache)))
        if first_byte_s is not None:
            self._observed.append((self._first_byte, first_byte_s, (route, cache)))
        self._count(self._requests, route, str(status), cache)

    def cache(self, tier: str, outcome: str) -> None:
        self._count(self._cache, tier, outcome)

    def stages(self, seconds: Mapping[str, float]) -> None:  # a count follows
        self._observed += [(self._stages, each, (stage,)) for stage, each in seconds.items()]

    def operation(self, what: str, outcome: str) -> None:
        self._count(self._operations, what, outcome)

    def write_skipped(self, reason: str) -> None:
        self._count(self._skipped, reason)

    def content(self, rule: str, action: str, times: int = 1) -> None:
        self._count(self._content, rule, action)
        self._counts[self._content, (rule, action)] += times - 1

    def disconnected(self, route: str) -> None:
        self._count(self._disconnected, route)

    def opened(self, reason: str) -> None:
        """A replica's circuit has opened."""
        self._count(self._opened, reason)

    def prediction(self, predicted: int, cached: int, prompt_tokens: int) -> None:
        kinds = {"prompt": prompt_tokens, "cached": cached, "predicted": predicted, "error": abs(predicted - cached)}
        for kind, tokens in kinds.items():
            if tokens:  # Ray refuses to add nothing
                self._counts[self._prefix_tokens, (kind,)] += tokens
        self._count(self._predictions, "exact" if predicted == cached else "over" if predicted > cached else "under")

    def trust(self, is_trusted: bool) -> None:
        self._is_trusted = is_trusted

    def planned(self, displacement: int) -> None:  # a count follows
        self._observed.append((self._planned, displacement, ()))

    def head_start(self, used: int, wasted: int) -> None:  # a count follows
        for use, tokens in (("used", used), ("wasted", wasted)):
            if tokens:
                self._counts[self._head_starts, (use,)] += tokens

    def kept(self, event: str, count: int = 1) -> None:
        if count:
            self._count(self._kept, event)
            self._counts[self._kept, (event,)] += count - 1

    def _count(self, counter: _Family, *values: str) -> None:
        self._counts[counter, values] += 1
        if len(self._observed) >= MAX_OBSERVED:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EXPORT_S, self.flush)

    def flush(self) -> None:
        """Gives Ray what has been gathered. To be called once more at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, collections.Counter()
        observed, self._observed = self._observed, []
        for (family, values), number in counts.items():
            family.metric.inc(number, tags=dict(zip(family.keys, values, strict=True)))
        self._trust.set(int(self._is_trusted))  # again and again: Ray forgets a gauge that nobody sets
        for state, number in self.circuits().items():
            self._circuit_states.set(number, tags={"state": state})
        for family, value, values in observed:
            family.metric.observe(value, tags=dict(zip(family.keys, values, strict=True)))
