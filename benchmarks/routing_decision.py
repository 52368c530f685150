"""What a routing decision takes, and what keeping the index takes, in one process on one core.

python -m benchmarks.routing_decision --replicas 64 --blocks 1000000
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import Row, say
from cache.prefix.events import MEDIUM_GPU, BlockRemoved, BlockStored, KVEventBatch
from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys
from cache.prefix.mirror import Change, EngineMirror
from cache.prefix.profile import PrefillProfile
from cache.prefix.router import LeastCost, Prompt, Router

_SHARED_TOKENS = 2_000
"""Of each prompt, as a system prompt that many replicas hold."""


def main() -> None:
    parser = report.parser("routing_decision", "Time of a routing decision, and of applying KV events.")
    parser.add_argument("--replicas", type=int, default=64, help="that a decision ranks")
    parser.add_argument("--blocks", type=int, default=1_000_000, help="blocks in the index, over all replicas")
    parser.add_argument("--block-size", type=int, default=32, help="tokens in a KV block")
    parser.add_argument("--decisions", type=int, default=2000, help="that are timed, for each length of prompts")
    options = parser.parse_args()
    if options.quick:
        options.blocks, options.decisions = min(options.blocks, 100_000), min(options.decisions, 200)
    fleet = Filled(options.replicas, options.blocks, options.block_size, options.seed)
    rows = [fleet.decisions(tokens, options.decisions) for tokens in (8_000, 100_000)]
    rows.append(events(options.block_size, options.replicas, 50_000 if options.quick else 500_000))
    report.show("routing_decision", options, rows)


class Filled:
    """A router whose index knows `blocks` blocks of long prompts, each held by one replica and its beginning by several."""

    def __init__(self, replicas: int, blocks: int, block_size: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tokens = np.random.default_rng(seed)
        self._keys = BlockKeys(b"benchmark", block_size)
        profile = PrefillProfile()
        before = _resident()
        self.router = Router(LeastCost(profile), profile, PrefixIndex(max(8_000_000, 4 * blocks)), block_size, time.perf_counter)
        self._names = [f"replica-{number}" for number in range(replicas)]
        self._system = [self._random(_SHARED_TOKENS) for _ in range(8)]
        self._held: dict[int, list[np.ndarray[Any, Any]]] = {8_000: [], 100_000: []}
        while len(self.router.index) < blocks:
            self._fill(100_000 if self._chance.random() < 0.1 else 8_000)
        gc.collect()
        gc.freeze()
        self.bytes_a_block = (_resident() - before) / len(self.router.index)
        say(f"{len(self.router.index):,} blocks on {replicas} replicas, {self.bytes_a_block:.0f} bytes each")

    def _fill(self, tokens: int) -> None:
        prompt = self._prompt(tokens)
        if len(self._held[tokens]) < 50:
            self._held[tokens].append(prompt)
        keys = self._keys.chain(self._keys.root("tenant"), prompt)
        self.router.index.apply(self._chance.choice(self._names), [Change(0, True, keys)])

    def _prompt(self, tokens: int) -> np.ndarray[Any, Any]:
        return np.concatenate([self._chance.choice(self._system), self._random(tokens - _SHARED_TOKENS)])

    def _random(self, tokens: int) -> np.ndarray[Any, Any]:
        return self._tokens.integers(0, 150_000, tokens, dtype=np.uint32)

    def decisions(self, tokens: int, count: int) -> Row:
        """Half of the prompts are known to some replica, the others share their system prompt only. Keys, match, cost, reservation."""
        known = self._held[tokens] or [self._prompt(tokens)]
        root = self._keys.root("tenant")
        times = []
        open_requests = []
        for number in range(count):
            prompt = self._chance.choice(known) if number % 2 else self._prompt(tokens)
            start = time.perf_counter()
            routed = self.router.route(Prompt(self._keys.chain(root, prompt), tokens), self._names)
            times.append(time.perf_counter() - start)
            open_requests.append(routed)
            if len(open_requests) > 256:  # some always wait, some decode
                done = open_requests.pop(0)
                done.prefilled()
                done.end()
        for routed in open_requests:
            routed.end()
        micro = np.array(times) * 1e6
        return {
            "system": "ours",
            "tokens": tokens,
            "decision_p50_us": float(np.percentile(micro, 50)),
            "decision_p99_us": float(np.percentile(micro, 99)),
            "decisions_per_s": 1e6 / float(micro.mean()),
            "bytes_per_block": self.bytes_a_block,
        }


def events(block_size: int, replicas: int, blocks: int) -> Row:
    """Blocks a second from an engine's events to the index, mirror included; as they come from prefills (64 blocks) and decodes (one)."""
    keys = BlockKeys(b"benchmark", block_size)
    index = PrefixIndex()
    changes: list[Change] = []
    mirror = EngineMirror(keys, changes.append)
    rates = {}
    for at_once in (64, 1):
        batches = _batches(block_size, blocks // 10 if at_once == 1 else blocks, at_once)
        mirrored = _timed(mirror.apply, batches)
        applied = _timed(lambda change: index.apply("replica", [change]), changes)
        count = sum(len(change.keys) for change in changes if change.stored)
        rates[at_once] = count / (mirrored + applied), count / mirrored, count / applied
        changes.clear()
    return {
        "system": "ours",
        "events_per_s": rates[64][0],
        "mirror_per_s": rates[64][1],
        "index_per_s": rates[64][2],
        "single_events_per_s": rates[1][0],
    }


def _batches(block_size: int, blocks: int, at_once: int) -> list[KVEventBatch]:
    """Stored blocks, each followed by the removal of an old one, as in a full cache."""
    chance = np.random.default_rng(at_once)
    batches: list[KVEventBatch] = []
    names: list[bytes | int] = []
    parent: bytes | int | None = None
    for number in range(blocks // at_once):
        fresh: list[bytes | int] = [(at_once << 40) + number * at_once + place for place in range(at_once)]
        tokens = chance.integers(0, 150_000, block_size * at_once).tolist()
        stored = BlockStored(fresh, parent, tokens, block_size, None, MEDIUM_GPU, None, None, 0, "full_attention")
        names += fresh
        gone = [BlockRemoved([names.pop(0) for _ in range(at_once)], MEDIUM_GPU, 0)] if number > 1000 else []
        batches.append(KVEventBatch(0.0, [stored, *gone]))
        parent = fresh[-1] if number % 8 else None
    return batches


def _timed(act: Callable[[Any], None], items: Sequence[Any]) -> float:
    start = time.perf_counter()
    for item in items:
        act(item)
    return time.perf_counter() - start


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    main()
