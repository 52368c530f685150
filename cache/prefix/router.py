"""The decision: where a prompt goes.

Every replica gets a predicted time to the first token. The choice and its reservation are one step without waiting in between, so requests
that come together do not all see the same idle replica.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from cache.prefix.heat import Heat
from cache.prefix.index import PrefixIndex
from cache.prefix.ledger import Ledger, Work
from cache.prefix.mirror import Change
from cache.prefix.pending import Expected, Pending
from cache.prefix.profile import PrefillProfile

_TIE_S = 1e-6
"""Equal costs are decided by chance, so that routers with equal views do not all choose the same replica."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a decision needs to know of a request."""

    keys: Sequence[int]
    """Of its full blocks; empty if they are not known."""
    tokens: int
    is_whole: bool = False
    """Its answer comes in one piece."""


class Policy(Protocol):
    """Puts replicas in order for one prompt."""

    def order(self, ledgers: Sequence[Ledger], cached: Sequence[int], tokens: int, now: float, heat: float = 0.0) -> list[int]:
        """Places of all replicas, best first.

        `cached`: tokens of the prompt's `tokens` that each is predicted to hold; `heat`: how often the longest of these prefixes was asked
        for lately.
        """


class RoundRobin:
    """Each in turn, whatever it is doing."""

    def __init__(self) -> None:
        self._turn = count()

    def order(self, ledgers: Sequence[Ledger], cached: Sequence[int], tokens: int, now: float, heat: float = 0.0) -> list[int]:
        first = next(self._turn) % len(ledgers)
        return [*range(first, len(ledgers)), *range(first)]


class PowerOfTwo:
    """The one of two random replicas with fewer requests (Mitzenmacher 2001), then the others."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()

    def order(self, ledgers: Sequence[Ledger], cached: Sequence[int], tokens: int, now: float, heat: float = 0.0) -> list[int]:
        places = self._chance.sample(range(len(ledgers)), len(ledgers))
        return sorted(places[:2], key=lambda place: ledgers[place].ongoing) + sorted(places[2:], key=lambda place: ledgers[place].ongoing)


class LeastCost:
    """Least predicted seconds to the first token, plus a penalty for computing again what another replica holds.

    A prefix that is computed on a second replica takes the room of others there, which will be computed again in their turn. So each second
    of that counts `repeat` times more. 6 keeps the whole fleet's cache nearly as full of different things as one cache of its size
    (`benchmarks/NOTES.md`). The requests that use a prefix at the moment share that cost, so a hot one spreads.
    """

    def __init__(self, profile: PrefillProfile, repeat: float = 6.0, chance: random.Random | None = None) -> None:
        self._profile = profile
        self._repeat = repeat
        self._chance = chance or random.Random()

    def order(self, ledgers: Sequence[Ledger], cached: Sequence[int], tokens: int, now: float, heat: float = 0.0) -> list[int]:
        a, b, c, d, e = self._profile.coefficients  # its `seconds`, inline: calls for each replica would take longer than the rest
        again = self._repeat / (1 + heat)
        most = max(cached)
        draw = self._chance.random
        costs = []
        for ledger, have in zip(ledgers, cached, strict=True):
            new = tokens - have
            decoding = ledger.decoding + ledger.others_decoding
            each = b + (d + e * decoding if decoding else 0.0)
            seconds = a + new * (each + c * (have + new / 2)) + again * each * (most - have)
            if ledger.waiting:  # as in `Ledger.backlog_s`
                seconds += max(ledger.queued_s - min(now - ledger.since, ledger.oldest_s), 0.0)
            seconds += ledger.others_backlog_s
            costs.append(seconds + _TIE_S * draw())
        return sorted(range(len(costs)), key=costs.__getitem__)


@dataclass(slots=True, eq=False)
class Routed:
    """A ranked list, with the load reserved on the replica that is being asked. To be ended in every case."""

    router: "Router"
    prompt: Prompt
    replicas: list[str]
    """Best first."""
    ledgers: list[Ledger]
    cached: list[int]
    """Tokens that each is predicted to hold, in the same order."""
    heat: float = 0.0
    """How often the longest of these prefixes was asked for lately."""
    asked: str | None = None
    predicted: int = 0
    """Cached tokens on the replica that was asked."""
    _ledger: Ledger | None = None
    _work: Work | None = None
    _expected: Expected | None = None

    @property
    def work(self) -> Work | None:
        """What is reserved now."""
        return self._work

    def ask(self, replica: str) -> None:
        """The request goes to this replica: the first one, or the next when that did not take it."""
        if self.asked == replica:
            return
        self.end()
        self.asked = replica
        place = self.replicas.index(replica)
        self.predicted, self._ledger = self.cached[place], self.ledgers[place]
        self._work, self._expected = self.router.reserve(self.prompt, self._ledger, self.predicted)

    def prefilled(self) -> None:
        """The first token has come. Calling it twice is harmless."""
        if self._ledger and self._work and self._expected:
            self._ledger.prefilled(self._work, self.router.clock())
            if not self._expected.stored:
                self.router.pending.stored(self._expected)

    def leave(self, share: float) -> None:
        """It is given up when about this share of its prefill is done. What was computed stays where it is."""
        if self._ledger and self._work and self._expected and not self._work.is_over:
            self._ledger.end(self._work, self.router.clock())
            self.router.pending.shorten(self._expected, int(share * len(self._expected.keys)))
            self.router.pending.stored(self._expected)

    def end(self) -> None:
        """The answer has ended, or will not come. Calling it twice is harmless."""
        if self._ledger and self._work and self._expected:
            self._ledger.end(self._work, self.router.clock())
            if not self._expected.stored:
                self.router.pending.drop(self._expected)


class Router:
    """Of one model, in one process."""

    def __init__(self, policy: Policy, profile: PrefillProfile, index: PrefixIndex, block_size: int, clock: Callable[[], float]) -> None:
        self.policy = policy
        self.profile = profile
        self.index = index
        self.clock = clock
        self.pending = Pending(clock)
        self.block_size = block_size
        self._heat = Heat(clock)
        self._ledgers: dict[str, Ledger] = {}

    @property
    def replicas(self) -> set[str]:
        """Those of which anything is remembered."""
        return set(self._ledgers)

    def ledger(self, replica: str) -> Ledger:
        ledger = self._ledgers.get(replica)
        if ledger is None:
            ledger = self._ledgers[replica] = Ledger(replica, self.profile.learn)
            self.index.slot_mask(replica)  # before its first report, too, something can be expected there
        return ledger

    def apply(self, replica: str, changes: Sequence[Change], is_snapshot: bool = False) -> None:
        """What a replica says of its cache; `is_snapshot`: beginning from nothing. What is on its way there stays expected."""
        bit = self.index.slot_mask(replica)
        if is_snapshot:
            self.index.forget(replica)
        self.index.apply(replica, changes)
        if (now := self.index.slot_mask(replica)) != bit:
            self.pending.move(bit, now)

    def forget(self, replica: str) -> None:
        """It has gone."""
        if self._ledgers.pop(replica, None):
            self.pending.leave(self.index.slot_mask(replica))
        self.index.forget(replica)

    def route(self, prompt: Prompt, replicas: Sequence[str]) -> Routed:
        """Ranks and reserves the first. `replicas` must not be empty."""
        cached = self.cached(prompt, replicas)
        heat = self.heat(prompt, cached)
        places = self.order(replicas, cached, prompt.tokens, heat)
        return self.take(prompt, [replicas[place] for place in places], [cached[place] for place in places], heat)

    def heat(self, prompt: Prompt, cached: Sequence[int]) -> float:
        """How often the longest prefix that is cached was asked for lately. Counts this request."""
        shared = max(cached) // self.block_size
        return self._heat.touch(prompt.keys[shared - 1]) if shared else 0.0

    def cached(self, prompt: Prompt, replicas: Sequence[str]) -> list[int]:
        """Tokens of the prompt that each replica is predicted to hold."""
        self.pending.expire()
        found = self.index.match(prompt.keys, self.pending.masks).any_tier if prompt.keys else {}
        if not found:
            return [0] * len(replicas)
        most = max(prompt.tokens - 1, 0) // self.block_size  # an engine computes at least the last token, and whole blocks
        return [min(found.get(replica, 0), most) * self.block_size for replica in replicas]

    def order(self, replicas: Sequence[str], cached: Sequence[int], tokens: int, heat: float = 0.0) -> list[int]:
        """Places of all replicas, best first, for a prompt of so many tokens of which each holds `cached`."""
        now = self.clock()
        ledgers = [self._ledgers.get(replica) or self.ledger(replica) for replica in replicas]
        for ledger in ledgers:
            if ledger.settles_at <= now:
                ledger.settle(now)
        return self.policy.order(ledgers, cached, tokens, now, heat)

    def take(self, prompt: Prompt, replicas: list[str], cached: list[int], heat: float = 0.0) -> Routed:
        """Reserves the first of these replicas, which hold `cached` tokens each."""
        routed = Routed(self, prompt, replicas, [self.ledger(replica) for replica in replicas], cached, heat)
        routed.ask(routed.replicas[0])
        return routed

    def reserve(self, prompt: Prompt, ledger: Ledger, cached: int) -> tuple[Work, Expected]:
        new = prompt.tokens - cached
        work = Work(
            cached, new, self.profile.seconds(cached, new, ledger.decoding + ledger.others_decoding), prompt.is_whole, bool(prompt.keys)
        )
        ledger.admit(work, self.clock())
        keys = prompt.keys[cached // self.block_size :] if ledger.id in self._ledgers else []  # it may have gone since the decision
        return work, self.pending.add(keys, self.index.slot_mask(ledger.id) if keys else 0)
