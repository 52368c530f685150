"""Ray Serve's `PrefixCacheAffinityRouter`, its own prefix tree included, for the fleet simulator.

The decision is the router's (`ray.llm`, 2.60), without its actor: best match of characters; below a tenth of the text, the replicas that
got least text; among several, the one with the fewest requests under way. Load counts for nothing else, as by default.
"""

from __future__ import annotations

from array import array

import numpy as np
from ray.llm._internal.serve.routing_policies.prefix_aware.prefix_tree import PrefixTree

from benchmarks.fleet import Clock
from cache.prefix.events import Event

_MATCH_RATE = 0.1
_TOKENS_A_CHARACTER = 16
"""The tree only compares: one character stands for so many tokens, which keeps texts short."""


class PrefixAffinity:
    def __init__(self, replicas: int, clock: Clock) -> None:
        self._tree = PrefixTree()
        self._clock = clock
        self._ongoing = [0] * replicas
        self._sent: dict[int, int] = {}
        self._names = [str(number) for number in range(replicas)]
        self._tree.add_tenants(self._names, 0.0)

    def choose(self, number: int, prompt: array[int], answer_tokens: int) -> int:
        text = _text(prompt)
        matched, tenants = self._tree.prefix_match(text, self._names)
        if not tenants or len(matched) < _MATCH_RATE * len(text):
            tenants = self._tree.get_smallest_tenants() or self._names
        chosen = min((int(name) for name in tenants), key=self._ongoing.__getitem__)
        self._tree.insert(text, str(chosen), self._clock())
        self._ongoing[chosen] += 1
        self._sent[number] = chosen
        return chosen

    def sent(self, number: int) -> None: ...

    def first_token(self, number: int) -> None: ...

    def ended(self, number: int) -> None:
        self._ongoing[self._sent.pop(number)] -= 1

    def events(self, replica: int, events: list[Event]) -> None: ...

    def close(self) -> None: ...


def _text(prompt: array[int]) -> str:
    tokens = np.frombuffer(prompt, np.uint32)
    first = tokens[: len(tokens) // _TOKENS_A_CHARACTER * _TOKENS_A_CHARACTER : _TOKENS_A_CHARACTER].astype(np.uint64)
    codes = 0x10000 + (first * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(44))  # the planes above the surrogates
    return (np.minimum(codes, 0x10FFFF)).astype("<u4").tobytes().decode("utf-32-le") or "\0"
