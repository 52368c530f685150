"""Traces of requests: Mooncake's, and generated ones."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.fleet import Arrival

FOLDER = Path(__file__).parent.parent.parent / "shared" / "data" / "traces"
_TRACE_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request: its prompt is `ids`' blocks, as far as `tokens` goes."""

    at_s: float
    tokens: int
    answer_tokens: int
    ids: tuple[int, ...]

    def arrival(self, scale: float) -> Arrival:
        """`scale` stretches time."""
        blocks = np.array(self.ids, np.uint32)[:, None] * np.uint32(_TRACE_BLOCK) + np.arange(_TRACE_BLOCK, dtype=np.uint32)
        return Arrival(self.at_s * scale, array("I", blocks.ravel()[: self.tokens].tobytes()), self.answer_tokens)


def find(name: str) -> Path:
    """The file of a trace, by name or path. Raises `FileNotFoundError`."""
    for path in (Path(name), FOLDER / f"{name}.jsonl"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no trace {name}: neither a file, nor in {FOLDER}. Mooncake's are at github.com/kvcache-ai/Mooncake, FAST25-release"
    )


def mooncake(name: str, limit: int | None = None) -> list[Line]:
    """A trace in Mooncake's format: `hash_ids` name blocks of 512 tokens, and equal names mean equal prefixes."""
    lines = []
    with find(name).open() as file:
        for text in file:
            one = json.loads(text)
            tokens = min(one["input_length"], len(one["hash_ids"]) * _TRACE_BLOCK)
            lines.append(Line(one["timestamp"] / 1000, tokens, max(one["output_length"], 1), tuple(one["hash_ids"])))
            if len(lines) == limit:
                break
    return lines


def groups(
    count: int, each: int, prefix: int, question: int, answer: int, requests_per_s: float, seed: int, requests: int | None = None
) -> list[Line]:
    """Requests of groups that share a prefix, at random, with times of a Poisson process. Lengths are in tokens."""
    chance = random.Random(seed)
    shared, own = -(-prefix // _TRACE_BLOCK), -(-question // _TRACE_BLOCK)
    order = [group for group in range(count) for _ in range(each)]
    chance.shuffle(order)
    at_s, lines = 0.0, []
    for number, group in enumerate(order[:requests]):
        at_s += chance.expovariate(requests_per_s)
        start = count * shared + number * own
        ids = (*range(group * shared, (group + 1) * shared), *range(start, start + own))
        lines.append(Line(at_s, shared * _TRACE_BLOCK + question, answer, ids))
    return lines


def burst(count: int, prefix: int, question: int, answer: int, seconds: float, seed: int) -> list[Line]:
    """Requests that all begin with one prefix, which nobody has sent before, at random moments of a short time."""
    chance = random.Random(seed)
    one = groups(1, count, prefix, question, answer, 1.0, seed)
    times = sorted(chance.uniform(0, seconds) for _ in range(count))
    return [replace(line, at_s=at_s) for line, at_s in zip(one, times, strict=True)]


def arrivals(lines: list[Line], requests_per_s: float | None = None) -> Iterator[Arrival]:
    """At the trace's own times, or stretched to a mean rate."""
    span = lines[-1].at_s - lines[0].at_s
    scale = 1.0 if requests_per_s is None else (len(lines) / requests_per_s / span if span else 0.0)
    return (line.arrival(scale) for line in lines)


def at_once(lines: list[Line]) -> Iterator[Arrival]:
    return (line.arrival(0.0) for line in lines)


def shared_share(lines: list[Line], block_size: int) -> float:
    """Share of prompt tokens that one cache for all, which forgets nothing, would hold."""
    seen: set[int] = set()
    cached = 0
    for line in lines:
        known = 0
        for number in line.ids:
            if number not in seen:
                break
            known += 1
        seen.update(line.ids)
        cached += min(known * _TRACE_BLOCK, (line.tokens - 1) // block_size * block_size)
    return cached / sum(line.tokens for line in lines)
