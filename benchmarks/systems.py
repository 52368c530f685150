"""Ways to choose a replica, for the fleet simulator: this project's router, and rivals."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.fleet import Clock, System
from cache.prefix.events import Event, KVEventBatch
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.ledger import Ledger
from cache.prefix.mirror import Change, EngineMirror
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Policy, PowerOfTwo, Prompt, RoundRobin, Routed, Router
from deployments.accounts import Account, Accounts, read_work, write_work
from deployments.config import SimulatedEngineConfig
from deployments.engines.base import Load


class Ours:
    """The production router behind the production mirror."""

    def __init__(self, config: SimulatedEngineConfig, replicas: int, clock: Clock, policy: Callable[[PrefillProfile], Policy]) -> None:
        self.keys = BlockKeys(b"benchmark", config.block_size)
        self.root = self.keys.root()
        self.profile = PrefillProfile()
        self.router = Router(policy(self.profile), self.profile, PrefixIndex(), config.block_size, clock)
        self._names = [str(number) for number in range(replicas)]
        self._changes: list[list[Change]] = [[] for _ in range(replicas)]
        self._mirrors = [EngineMirror(self.keys, changes.append) for changes in self._changes]
        self.routed: dict[int, Routed] = {}

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        tokens = np.frombuffer(prompt, np.uint32)
        routed = self.router.route(Prompt(self.keys.chain(self.root, tokens), len(prompt)), self._names)
        self.routed[number] = routed
        return int(routed.replicas[0])

    def sent(self, number: int) -> None: ...

    def first_token(self, number: int) -> None:
        self.routed[number].prefilled()

    def ended(self, number: int) -> None:
        self.routed.pop(number).end()

    def events(self, replica: int, events: list[Event]) -> None:
        self._mirrors[replica].apply(KVEventBatch(0.0, events))
        changes = self._changes[replica]
        self.router.apply(self._names[replica], changes)
        changes.clear()

    def close(self) -> None: ...


class SeveralIngresses:
    """Several ingresses with a router each; requests go to them in turn. What each is told of the others' requests, and how, is production
    code: by the replica, when a request reaches it, answers and ends."""

    def __init__(self, ingresses: list[Ours], replicas: int, clock: Clock) -> None:
        self._ingresses = ingresses
        self._accounts = [Accounts(clock) for _ in range(replicas)]
        self._open: dict[int, Account] = {}

    def _at(self, number: int) -> Ours:
        return self._ingresses[number % len(self._ingresses)]

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        return self._at(number).choose(number, prompt, answer_tokens)

    def sent(self, number: int) -> None:
        routed = self._at(number).routed.get(number)
        if routed and routed.work:  # else it has been rejected
            place = int(routed.replicas[0])
            self._open[number] = self._accounts[place].admit(str(number % len(self._ingresses)), read_work(write_work(routed.work)))
            self._tell(place)

    def first_token(self, number: int) -> None:
        place = int(self._at(number).routed[number].replicas[0])
        self._at(number).first_token(number)
        if account := self._open.get(number):
            account.answered()
        self._tell(place)

    def ended(self, number: int) -> None:
        place = int(self._at(number).routed[number].replicas[0])
        self._at(number).ended(number)
        if account := self._open.pop(number, None):
            account.end()
        self._tell(place)

    def events(self, replica: int, events: list[Event]) -> None:
        for ingress in self._ingresses:
            ingress.events(replica, events)

    def close(self) -> None: ...

    def _tell(self, place: int) -> None:
        for number, ingress in enumerate(self._ingresses):
            activity = self._accounts[place].activity(str(number), Load(0, 0, 0.0), False)
            ledger = ingress.router.ledger(str(place))
            ledger.others_backlog_s = activity.others_backlog_s
            ledger.others_waiting = activity.others_waiting
            ledger.others_decoding = activity.others_decoding


class Anywhere:
    """A replica at random."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def order(self, ledgers: Sequence[Ledger], cached: Sequence[int], tokens: int, now: float, heat: float = 0.0) -> list[int]:
        return self._chance.sample(range(len(ledgers)), len(ledgers))


NAMES = ("round_robin", "power_of_two", "random", "ray_prefix_affinity", "dynamo", "ours")


def create(name: str, config: SimulatedEngineConfig, replicas: int, clock: Clock, seed: int, ingresses: int = 1) -> System:
    """Raises `KeyError` for an unknown name, `ImportError` for a rival that is not installed."""
    if name == "dynamo":
        from benchmarks.rivals.dynamo_selection import DynamoSelection

        return DynamoSelection(config, replicas)
    if name == "ray_prefix_affinity":
        from benchmarks.rivals.ray_prefix_affinity import PrefixAffinity

        return PrefixAffinity(replicas, clock)
    policies: dict[str, Callable[[PrefillProfile], Policy]] = {
        "ours": lambda profile: LeastCost(profile, chance=random.Random(seed)),
        "round_robin": lambda profile: RoundRobin(),
        "random": lambda profile: Anywhere(random.Random(seed)),
        "power_of_two": lambda profile: PowerOfTwo(random.Random(seed)),
    }
    made = [Ours(config, replicas, clock, policies[name]) for _ in range(ingresses if name == "ours" else 1)]
    return made[0] if len(made) == 1 else SeveralIngresses(made, replicas, clock)
