"""Labelled pairs for training and measuring, and which of them are never trained on."""

import gzip
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_WORD = re.compile(r"\w+")
Part = Literal["train", "calibrate", "test"]
BUCKETS = 100
TEST, CALIBRATE = range(5), range(5, 8)
"""Of a hundred questions: those of the test part, and those that the calibration may see."""


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two questions, and whether people found that they ask the same."""

    a: str
    b: str
    same: bool


def read_pairs(path: Path) -> list[LabelledPair]:
    """JSON lines `{"a", "b", "same"}`, gzipped or not. Raises `ValueError`, which names the line."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(_parse(iter(text.splitlines())))


def _parse(lines: Iterator[str]) -> Iterator[LabelledPair]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield LabelledPair(str(row["a"]), str(row["b"]), bool(row["same"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"line {number}: a JSON object with a, b and same is needed") from None


def part_of(pair: LabelledPair) -> Part:
    """By a hash of the two questions, so that it is the same everywhere, and no question of the test part is ever trained on."""
    buckets = {_bucket(pair.a), _bucket(pair.b)}
    if buckets & set(TEST):
        return "test"
    return "calibrate" if buckets & set(CALIBRATE) else "train"


def _bucket(question: str) -> int:
    return int.from_bytes(hashlib.sha256(question.strip().lower().encode("utf-8", "surrogatepass")).digest()[:4], "big") % BUCKETS


def digest(pairs: Sequence[LabelledPair]) -> str:
    """Names a set of pairs, whatever their order."""
    lines = sorted(json.dumps([pair.a, pair.b, pair.same]) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def shared_words(pairs: Sequence[LabelledPair]) -> list[float]:
    """Of the words of each pair, the share that both questions have, each word weighed by how few of all pairs have it."""
    bags = [(set(_WORD.findall(pair.a.lower())), set(_WORD.findall(pair.b.lower()))) for pair in pairs]
    frequency = Counter(word for a, b in bags for word in a | b)
    weight = {word: math.log((1 + len(pairs)) / count) for word, count in frequency.items()}
    return [sum(weight[word] for word in a & b) / (sum(weight[word] for word in a | b) or 1.0) for a, b in bags]
