"""Ways to choose a replica, for the fleet simulator: this project's router, and rivals."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import numpy as np

from benchmarks.fleet import Clock, System
from cache.prefix.events import Event, KVEventBatch
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Policy, PowerOfTwo, Prompt, RoundRobin, Routed, Router
from deployments.config import SimulatedEngineConfig


class Ours:
    """The production router behind the production mirror."""

    def __init__(self, config: SimulatedEngineConfig, replicas: int, clock: Clock, policy: Callable[[PrefillProfile], Policy]) -> None:
        self._keys = BlockKeys(b"benchmark", config.block_size)
        self._root = self._keys.root()
        self.profile = PrefillProfile()
        self.router = Router(policy(self.profile), self.profile, PrefixIndex(), config.block_size, clock)
        self._names = [str(number) for number in range(replicas)]
        self._changes: list[list[Change]] = [[] for _ in range(replicas)]
        self._mirrors = [EngineMirror(self._keys, changes.append) for changes in self._changes]
        self._routed: dict[int, Routed] = {}

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        tokens = np.frombuffer(prompt, np.uint32)
        routed = self.router.route(Prompt(self._keys.chain(self._root, tokens), len(prompt)), self._names)
        self._routed[number] = routed
        return int(routed.replicas[0])

    def first_token(self, number: int) -> None:
        self._routed[number].prefilled()

    def ended(self, number: int) -> None:
        self._routed.pop(number).end()

    def events(self, replica: int, events: list[Event]) -> None:
        self._mirrors[replica].apply(KVEventBatch(0.0, events))
        changes = self._changes[replica]
        self.router.index.apply(self._names[replica], changes)
        changes.clear()

    def close(self) -> None: ...


def ours(config: SimulatedEngineConfig, replicas: int, clock: Clock, seed: int) -> System:
    return Ours(config, replicas, clock, lambda profile: LeastCost(profile, chance=random.Random(seed)))


def round_robin(config: SimulatedEngineConfig, replicas: int, clock: Clock, seed: int) -> System:
    return Ours(config, replicas, clock, lambda profile: RoundRobin())


def power_of_two(config: SimulatedEngineConfig, replicas: int, clock: Clock, seed: int) -> System:
    return Ours(config, replicas, clock, lambda profile: PowerOfTwo(random.Random(seed)))
