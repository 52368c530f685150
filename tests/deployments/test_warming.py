"""Which prefixes are worth computing beforehand."""

from typing import Any

import numpy as np

from cache.prefix.index import PrefixIndex
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import RoundRobin, Router
from deployments.warming import HALF_LIFE_S, MAX_REMEMBERED, HotPrefix, Warmer


class Memory:
    """A warmer without replicas, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        nobody: Any = None
        self.warmer = Warmer(nobody, Router(RoundRobin(), PrefillProfile(), PrefixIndex(16), 1, lambda: self.now))

    def ask(self, key: int, heat: float) -> None:
        self.warmer.remember(HotPrefix([key], np.zeros(4, np.uint32), "salt", heat, self.now))

    def hottest(self) -> list[int]:
        return [prefix.keys[0] for prefix in self.warmer._hottest()]


def test_what_is_asked_for_now_comes_before_what_was_hotter_once() -> None:
    memory = Memory()
    for key in range(MAX_REMEMBERED):
        memory.ask(key, 50)
    memory.now = 4 * HALF_LIFE_S
    memory.ask(1000, 10)
    assert memory.hottest()[0] == 1000
    assert len(memory.hottest()) == MAX_REMEMBERED
    memory.now = 6 * HALF_LIFE_S
    assert memory.hottest() == [1000]


def test_of_too_many_the_coldest_goes() -> None:
    memory = Memory()
    for key in range(MAX_REMEMBERED + 1):
        memory.ask(key, 100 - key)
    assert memory.hottest() == list(range(MAX_REMEMBERED))
