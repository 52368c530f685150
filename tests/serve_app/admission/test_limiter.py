"""What tenants and keys may have, and what they are told."""

from typing import Any

import msgspec
import pytest

from serve_app.admission.limiter import Limiter, Ticket
from serve_app.errors import RateLimitError
from serve_app.keyring.settings import Limits, TenantSettings
from serve_app.tenants import Principal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(Limits(), clock)


def one(tenant: str = "ada", key: str = "k1", *, own: Any = None, shared: Any = None) -> Principal:
    return Principal(tenant, key, limits=Limits(**(own or {})), shared=TenantSettings(limits=Limits(**(shared or {}))))


def refusal(limiter: Limiter, who: Principal, expected: float = 0) -> RateLimitError:
    with pytest.raises(RateLimitError) as caught:
        limiter.enter(who, expected)
    return caught.value


def test_where_nothing_is_limited_everything_is_taken(limiter: Limiter) -> None:
    tickets = [limiter.enter(one(), 1e9) for _ in range(1000)]
    assert {str(ticket.headers) for ticket in tickets} == {"{}"}


def test_requests_a_minute(limiter: Limiter, clock: Clock) -> None:
    who = one(own={"requests_per_minute": 3})
    left = [limiter.enter(who, 0).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    error = refusal(limiter, who)
    assert (error.status, error.headers["retry-after"], error.code) == (429, "20", "rate_limit_exceeded")
    assert error.headers["x-ratelimit-limit-requests"] == "3"
    assert error.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert error.body()["error"]["type"] == "requests"
    clock.now = 20.0
    limiter.enter(who, 0)
    refusal(limiter, who)


def test_tokens_are_taken_as_expected_and_counted_as_used(limiter: Limiter) -> None:
    who = one(own={"tokens_per_minute": 1000})
    ticket = limiter.enter(who, 600)
    assert ticket.headers["x-ratelimit-remaining-tokens"] == "400"
    error = refusal(limiter, who, 500)
    assert (error.body()["error"]["type"], error.headers["retry-after"]) == ("tokens", "6")
    ticket.used(100)
    ticket.end()
    ticket.end()
    assert limiter.enter(who, 500).headers["x-ratelimit-remaining-tokens"] == "400"


def test_what_was_not_used_is_given_back(limiter: Limiter) -> None:
    who = one(own={"tokens_per_minute": 1000})
    for _ in range(5):
        ticket = limiter.enter(who, 1000)
        ticket.end()
        ticket.end()
    assert limiter.enter(who, 1000).headers["x-ratelimit-remaining-tokens"] == "0"


def test_what_was_used_beyond_expectation_is_owed(limiter: Limiter, clock: Clock) -> None:
    who = one(own={"tokens_per_minute": 60})
    limiter.enter(who, 1).used(120)
    assert refusal(limiter, who, 1).headers["retry-after"] == "61"
    clock.now = 61.0
    limiter.enter(who, 1)


def test_requests_at_once(limiter: Limiter) -> None:
    who = one(own={"concurrency": 2})
    first, _ = limiter.enter(who, 0), limiter.enter(who, 0)
    assert refusal(limiter, who).headers["retry-after"] == "1"
    first.end()
    first.end()
    limiter.enter(who, 0)
    refusal(limiter, who)


def test_a_refusal_takes_nothing(limiter: Limiter) -> None:
    who = one(own={"concurrency": 1, "requests_per_minute": 10}, shared={"requests_per_minute": 10, "tokens_per_minute": 100})
    ticket = limiter.enter(who, 0)
    for _ in range(20):
        refusal(limiter, who, 50)
    ticket.end()
    assert limiter.enter(who, 0).headers["x-ratelimit-remaining-requests"] == "8"


def test_keys_of_a_tenant_share_its_limits_and_have_their_own(limiter: Limiter) -> None:
    shared = {"requests_per_minute": 3}
    first, second = one(key="k1", own={"requests_per_minute": 2}, shared=shared), one(key="k2", shared=shared)
    limiter.enter(first, 0)
    assert limiter.enter(first, 0).headers["x-ratelimit-remaining-requests"] == "0"
    assert "this key" in refusal(limiter, first).message
    limiter.enter(second, 0)
    assert "your tenant" in refusal(limiter, second).message
    limiter.enter(one("bob", "k3", shared=shared), 0)


def test_a_tenant_of_which_nothing_is_said_has_the_configured_limits(clock: Clock) -> None:
    limiter = Limiter(Limits(requests_per_minute=1, concurrency=5), clock)
    limiter.enter(Principal("ada"), 0)
    refusal(limiter, Principal("ada"))
    more = one("bob", shared={"requests_per_minute": 2})
    limiter.enter(more, 0)
    limiter.enter(more, 0)
    refusal(limiter, more)


def test_limits_may_change_while_they_are_used(limiter: Limiter, clock: Clock) -> None:
    def may(number: int | None) -> Principal:
        return one(own={"requests_per_minute": number})

    for _ in range(5):
        limiter.enter(may(5), 0)
    refusal(limiter, may(5))
    limiter.enter(may(6), 0)
    refusal(limiter, may(6))
    for _ in range(10):
        limiter.enter(may(None), 0)
    refusal(limiter, may(0))


def test_those_that_were_idle_for_longest_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = Limiter(Limits(concurrency=1), clock)
    monkeypatch.setattr("serve_app.admission.limiter.MAX_REMEMBERED", 3)
    busy = limiter.enter(Principal("busy"), 0)
    for number in range(10):
        limiter.enter(Principal(str(number)), 0).end()
    assert len(limiter._meters) == 3
    assert "tenant busy" in limiter._meters
    busy.end()


@pytest.mark.parametrize(("seconds", "words"), [(0.02, "20ms"), (1.25, "1.25s"), (59.9, "59.9s"), (60, "1m0s"), (90.4, "1m30s")])
def test_durations_are_written_as_openai_does(seconds: float, words: str, limiter: Limiter, clock: Clock) -> None:
    who = one(own={"requests_per_minute": 600_000})
    ticket: Ticket = limiter.enter(who, 0)
    bucket = ticket.meters[1].buckets["requests"]
    bucket.take(bucket.level(0.0) - 600_000 + seconds * 10_000, 0.0)
    assert msgspec.structs.asdict(who.limits)["requests_per_minute"] == 600_000
    headers = refusal(limiter, one(own={"requests_per_minute": 600_000, "concurrency": 0})).headers
    assert headers["x-ratelimit-reset-requests"] == words
