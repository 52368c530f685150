"""Rates, tokens and concurrency of tenants and keys, in one ingress process and, as far as it is told, in all."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from serve_app.admission.bucket import SECONDS, Bucket
from serve_app.admission.shared import Count, SharedCounts
from serve_app.errors import RateLimitError
from serve_app.keyring.settings import Limits
from serve_app.tenants import Principal

MAX_REMEMBERED = 10_000
"""Tenants and keys. Those that were idle for longest are forgotten, and begin anew."""
BUSY_RETRY_S = 1.0
"""When to come again, where nobody knows when a running request ends."""
_NONE = Limits()
_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "concurrency": "requests at once"}


@dataclass(slots=True)
class _Meter:
    """What one tenant, or one key, has had."""

    whose: str
    count: Count
    shared: SharedCounts
    limits: Limits = Limits()  # noqa: RUF009  # frozen
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """Of `requests` and `tokens`, where they are limited."""

    @property
    def running(self) -> int:
        """In all ingresses."""
        return self.count.running + self.shared.running(self.count.name)

    def follow(self, limits: Limits, now: float) -> None:
        """The limits may have been changed."""
        self.limits = limits
        for kind, limit in (("requests", limits.requests_per_minute), ("tokens", limits.tokens_per_minute)):
            if limit is None:
                self.buckets.pop(kind, None)
            elif kind not in self.buckets:
                self.buckets[kind] = bucket = Bucket(limit, now - SECONDS)
                for at, requests, tokens in self.shared.lately(self.count.name):
                    bucket.level(at)
                    bucket.take(requests if kind == "requests" else tokens, at)
            elif self.buckets[kind].limit != limit:
                self.buckets[kind].resize(limit, now)

    def take(self, requests: int, tokens: float, now: float) -> None:
        """Here. What is negative is given back."""
        self.count.requests += requests
        self.count.tokens += tokens
        self.shared.changed(self.count)
        self.taken(requests, tokens, now)

    def taken(self, requests: float, tokens: float, now: float) -> None:
        """Here or elsewhere."""
        for kind, amount in (("requests", requests), ("tokens", tokens)):
            if kind in self.buckets and amount:
                self.buckets[kind].take(amount, now)

    def open(self, requests: int) -> None:
        self.count.running += requests
        self.shared.changed(self.count)


@dataclass(slots=True)
class Ticket:
    """A request that was taken. `end` is to be called in every case; twice is harmless."""

    meters: tuple[_Meter, ...]
    expected: float
    """Tokens that were taken for it beforehand."""
    headers: dict[str, str]
    """OpenAI's, of what is left; empty where nothing is limited."""
    clock: Callable[[], float]
    is_over: bool = False

    def expects(self, more: float) -> None:
        """It has so many tokens more than was known when it was taken. Raises `RateLimitError`; then they are not taken."""
        now = self.clock()
        for meter in self.meters:
            bucket = meter.buckets.get("tokens")
            if bucket is not None and (wait_s := bucket.wait_s(more, now)) > 0:
                raise _refusal(meter, "tokens", bucket.limit, wait_s, self.headers)
        for meter in self.meters:
            meter.take(0, more, now)
        self.expected += more

    def used(self, tokens: int) -> None:
        """What engines have computed for it, which counts instead of what was expected."""
        now = self.clock()
        for meter in self.meters:
            meter.take(0, tokens - self.expected, now)
        self.expected = 0.0

    def end(self) -> None:
        """What was expected is given back if nothing was used."""
        if self.is_over:
            return
        self.is_over = True
        if self.expected:
            self.used(0)
        for meter in self.meters:
            meter.open(-1)


class Limiter:
    """`unless_said`: limits of a tenant where its own say nothing. `clock` gives seconds that never go back; `secret`: of the names by
    which ingresses tell each other of tenants and keys.
    """

    def __init__(self, unless_said: Limits, clock: Callable[[], float] = time.monotonic, secret: bytes = b"") -> None:
        self._unless_said = unless_said
        self._clock = clock
        self._meters: OrderedDict[str, _Meter] = OrderedDict()
        self._by_hash: dict[bytes, _Meter] = {}
        self.counts = SharedCounts(secret, clock, self._taken_elsewhere)

    def check(self, principal: Principal, expected: float) -> None:
        """Raises `RateLimitError` if `enter` would."""
        if self.is_free(principal):
            return
        now = self._clock()
        meters = self._meters_of(principal, now)
        headers = _headers(meters, now)
        for meter in meters:
            _check(meter, expected, now, headers)

    def enter(self, principal: Principal, expected: float) -> Ticket:
        """`expected`: tokens of the prompt and the answer. Raises `RateLimitError`; then nothing was taken."""
        self.check(principal, expected)
        now = self._clock()
        meters = () if self.is_free(principal) else self._meters_of(principal, now)
        for meter in meters:
            meter.take(1, expected, now)
            meter.open(1)
        return Ticket(meters, expected, _headers(meters, now), self._clock)

    def shared(self, principal: Principal) -> Limits:
        """Of all its tenant's keys together."""
        return _merged(principal.shared.limits, self._unless_said)

    def is_free(self, principal: Principal) -> bool:
        """Nothing limits it."""
        return principal.limits == _NONE and self.shared(principal) == _NONE

    def _meters_of(self, principal: Principal, now: float) -> tuple[_Meter, ...]:
        meters = [self._meter(f"tenant {principal.tenant}", "your tenant", self.shared(principal), now)]
        if principal.key_id:
            meters.append(self._meter(f"key {principal.key_id}", "this key", principal.limits, now))
        return tuple(meters)

    def _meter(self, name: str, whose: str, limits: Limits, now: float) -> _Meter:
        found = self._meters.get(name)
        if found is None:
            found = self._meters[name] = _Meter(whose, self.counts.count(name), self.counts)
            self._by_hash[found.count.name] = found
            self._make_room()
        if found.limits is not limits:
            found.follow(limits, now)
        self._meters.move_to_end(name)
        return found

    def _make_room(self) -> None:
        while len(self._meters) > MAX_REMEMBERED:
            name = next((name for name, meter in self._meters.items() if not meter.count.running), None)
            if name is None:
                return
            del self._by_hash[self._meters.pop(name).count.name]

    def _taken_elsewhere(self, name: bytes, requests: float, tokens: float) -> None:
        if meter := self._by_hash.get(name):
            meter.taken(requests, tokens, self._clock())


def _check(meter: _Meter, expected: float, now: float, headers: dict[str, str]) -> None:
    if meter.limits.concurrency is not None and meter.running >= meter.limits.concurrency:
        raise _refusal(meter, "concurrency", meter.limits.concurrency, BUSY_RETRY_S, headers)
    for kind, amount in (("requests", 1.0), ("tokens", max(expected, 1.0))):
        bucket = meter.buckets.get(kind)
        if bucket is not None and (wait_s := bucket.wait_s(amount, now)) > 0:
            raise _refusal(meter, kind, bucket.limit, wait_s, headers)


def _refusal(meter: _Meter, kind: str, limit: int, wait_s: float, headers: dict[str, str]) -> RateLimitError:
    message = f"Rate limit reached: {meter.whose} may have {limit} {_WORDS[kind]}."
    return RateLimitError(message, kind="tokens" if kind == "tokens" else "requests", retry_after_s=wait_s, headers=headers)


@lru_cache(MAX_REMEMBERED)
def _merged(limits: Limits, unless_said: Limits) -> Limits:
    """Field by field. Of equal ones the same object, so that meters see cheaply that nothing has changed."""
    said = {
        name: value if (value := getattr(limits, name)) is not None else getattr(unless_said, name) for name in Limits.__struct_fields__
    }
    return Limits(**said)


def _headers(meters: tuple[_Meter, ...], now: float) -> dict[str, str]:
    """Of each kind, those of the meter that has least left."""
    headers: dict[str, str] = {}
    for kind in ("requests", "tokens"):
        buckets = [meter.buckets[kind] for meter in meters if kind in meter.buckets]
        if not buckets:
            continue
        nearest = min(buckets, key=lambda bucket: bucket.level(now))
        headers[f"x-ratelimit-limit-{kind}"] = str(nearest.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(nearest.level(now))))
        headers[f"x-ratelimit-reset-{kind}"] = _duration(nearest.full_s(now))
    return headers


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1.2s`, `20ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{round(rest)}s" if minutes else f"{round(rest, 3):g}s"
