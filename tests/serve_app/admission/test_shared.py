"""Limits over several ingresses: simulated, with a clock of their own, and messages that are late or lost."""

import heapq
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.gossip import Gossip
from serve_app.admission import shared
from serve_app.admission.limiter import Limiter, Ticket
from serve_app.admission.shared import OPEN_S, TOPIC
from serve_app.errors import RateLimitError
from serve_app.keyring.settings import Limits, TenantSettings
from serve_app.tenants import Principal

TELL_S = 0.2
STEP_S = 0.05
SECRET = b"a secret"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ingress:
    def __init__(self, clock: Clock) -> None:
        self.limiter = Limiter(Limits(), clock, SECRET)
        self.gossip = Gossip("ingress")
        self.gossip.others = 1
        self.gossip.add(TOPIC, self.limiter.counts)

    def tell(self, *others: "Ingress") -> None:
        if message := self.gossip.message():
            for other in others:
                other.gossip.hear(message)


def who(tenant: str = "ada", **limits: int) -> Principal:
    return Principal(tenant, shared=TenantSettings(limits=Limits(**limits)))


def passes(ingress: Ingress, principal: Principal, expected: float = 0.0) -> Ticket | None:
    try:
        return ingress.limiter.enter(principal, expected)
    except RateLimitError:
        return None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def two(clock: Clock) -> tuple[Ingress, Ingress]:
    return Ingress(clock), Ingress(clock)


def test_what_one_has_let_pass_the_other_does_not(two: tuple[Ingress, Ingress], clock: Clock) -> None:
    one, other = two
    principal = who(requests_per_minute=5, tokens_per_minute=1000)
    for ingress in (one, other):  # the first of each is known to nobody yet
        assert passes(ingress, principal, 100)
    one.tell(other)
    other.tell(one)
    ticket = passes(one, principal, 100)
    assert ticket
    assert (ticket.headers["x-ratelimit-remaining-requests"], ticket.headers["x-ratelimit-remaining-tokens"]) == ("2", "700")
    ticket.used(300)
    one.tell(other)
    last = passes(other, principal, 100)
    assert last
    assert (last.headers["x-ratelimit-remaining-requests"], last.headers["x-ratelimit-remaining-tokens"]) == ("1", "400")
    other.tell(one)
    assert [passes(one, principal) is not None for _ in range(3)] == [True, False, False]
    one.tell(other)
    assert passes(other, principal) is None
    clock.now += 12.0
    assert passes(other, principal)


def test_a_tenant_that_comes_to_an_ingress_for_the_first_time_has_had_what_it_had(two: tuple[Ingress, Ingress], clock: Clock) -> None:
    one, other = two
    principal = who(requests_per_minute=60)
    for _ in range(60):
        assert passes(one, principal)
    one.tell(other)
    assert passes(other, principal) is None
    clock.now += 10.0
    assert [passes(other, principal) is not None for _ in range(12)].count(True) in (9, 10, 11)


def test_requests_that_are_open_elsewhere_count(two: tuple[Ingress, Ingress], clock: Clock) -> None:
    one, other = two
    principal = who(concurrency=2)
    first, _ = passes(one, principal), passes(one, principal)
    one.tell(other)
    assert passes(other, principal) is None
    assert first
    first.end()
    one.tell(other)
    second = passes(other, principal)
    assert second
    other.tell(one)
    assert passes(one, principal) is None
    for _ in range(int(60 / TELL_S)):  # open for long: told again and again
        clock.now += TELL_S
        one.tell(other)
        other.tell(one)
        assert passes(other, principal) is None
    clock.now += OPEN_S + 0.1  # "one" has died
    assert passes(other, principal)


def test_tenants_and_keys_are_told_apart_and_their_names_are_not_told(two: tuple[Ingress, Ingress]) -> None:
    one, other = two
    key = Principal("ada", "key_1", limits=Limits(requests_per_minute=1), shared=TenantSettings(limits=Limits(requests_per_minute=9)))
    assert passes(one, key)
    message = one.gossip.message()
    assert message is not None
    assert b"ada" not in message
    assert b"key_1" not in message
    other.gossip.hear(message)
    assert passes(other, key) is None
    assert passes(other, who("ada", requests_per_minute=9))
    assert passes(other, who("bob", requests_per_minute=1))


def test_messages_are_bounded_and_all_get_their_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_TOLD", 4)
    one = Ingress(clock)
    for number in range(10):
        passes(one, who(str(number), requests_per_minute=5))
    told = [{had.name for had in one.limiter.counts.tell()} for _ in range(3)]
    assert [len(names) for names in told] == [4, 4, 4]
    assert len(set.union(*told)) == 10


def test_when_nothing_changes_nothing_is_told(clock: Clock) -> None:
    one = Ingress(clock)
    ticket = passes(one, who(requests_per_minute=5))
    assert ticket
    ticket.end()
    assert one.limiter.counts.tell()
    clock.now += 2.0
    assert one.limiter.counts.tell()
    assert one.limiter.counts.tell() is None


@dataclass
class Simulation:
    """Several ingresses that are offered more than passes. A message takes up to `delay_s`; of three in a row one arrives at least."""

    ingresses: int
    limit: int
    per_s: float
    delay_s: float
    loss: float
    restarts: int
    seed: int
    is_sharing: bool = True
    passed: list[tuple[float, int]] = field(default_factory=list)
    """When, and in which ingress."""

    def run(self, seconds: float) -> None:
        chance, clock, numbers = random.Random(self.seed), Clock(), count()
        ends = [Ingress(clock) for _ in range(self.ingresses)]
        lost = dict.fromkeys([(a, b) for a in range(self.ingresses) for b in range(self.ingresses)], 0)
        restarts = sorted(chance.uniform(0, seconds) for _ in range(self.restarts))
        under_way: list[tuple[float, int, int, bytes]] = []
        principal, next_tell, began = who(requests_per_minute=self.limit), clock.now, clock.now
        while clock.now - began < seconds:
            clock.now += STEP_S
            while restarts and restarts[0] <= clock.now - began:
                restarts.pop(0)
                ends[chance.randrange(self.ingresses)] = Ingress(clock)
            while under_way and under_way[0][0] <= clock.now:
                _, _, place, told = heapq.heappop(under_way)
                ends[place].gossip.hear(told)
            for place in range(self.ingresses):
                if chance.random() < self.per_s * STEP_S and (ticket := passes(ends[place], principal)):
                    ticket.end()
                    self.passed.append((clock.now, place))
            if self.is_sharing and clock.now >= next_tell:
                next_tell += TELL_S
                for place, end in enumerate(ends):
                    message = end.gossip.message()
                    for other in range(self.ingresses):
                        if message and other != place:
                            lost[place, other] = lost[place, other] + 1 if chance.random() < self.loss and lost[place, other] < 2 else 0
                            if not lost[place, other]:
                                heapq.heappush(under_way, (clock.now + chance.uniform(0, self.delay_s), next(numbers), other, message))

    def unheard(self) -> int:
        """The most that the others of any ingress let pass before the news of it came there."""
        late_s = 3 * TELL_S + self.delay_s + 2 * STEP_S
        return max(most_in([when for when, place in self.passed if place != here], late_s) for here in range(self.ingresses))

    def most_in(self, seconds: float) -> int:
        return most_in([when for when, _ in self.passed], seconds)


def most_in(times: list[float], seconds: float) -> int:
    """Of sorted times, in any so many seconds."""
    return max((bisect_right(times, at + seconds) - place for place, at in enumerate(times)), default=0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 4),
    st.sampled_from([6, 30, 120]),
    st.sampled_from([1.0, 5.0, 20.0]),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 2),
    st.integers(0, 10**6),
)
def test_all_together_let_pass_a_limit_and_what_is_not_known_yet(
    ingresses: int, limit: int, per_s: float, delay_s: float, loss: float, restarts: int, seed: int
) -> None:
    simulation = Simulation(ingresses, limit, per_s, delay_s, loss, restarts, seed)
    simulation.run(90.0)
    most_unheard = simulation.unheard()
    assert most_unheard <= (ingresses - 1) * limit + restarts * limit
    for window_s in (1.0, 10.0, 60.0):
        bound = limit * (1 + window_s / 60) + most_unheard + restarts * limit
        assert simulation.most_in(window_s) <= bound + 1


def test_in_the_long_run_the_limit_holds_however_many_ingresses_there_are() -> None:
    together, apart = (Simulation(4, 60, 4.0, 0.1, 0.2, 0, 7, is_sharing=sharing) for sharing in (True, False))
    for each in (together, apart):
        each.run(240.0)
    assert len(together.passed) <= 60 + 240 + 20
    assert len(together.passed) > 240
    assert len(apart.passed) > 3 * len(together.passed)
