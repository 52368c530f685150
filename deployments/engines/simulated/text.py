"""Answers: readable, deterministic, and a function of the whole prompt, so that a wrong cache hit is seen."""

import hashlib
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.engines.simulated import tokenizer

_VOCABULARY = """
    able about above after again air all and area away back base began being best block both bring build built cache
    call came can carry case cause check chunk city clear close code cold come count cover cut data day deep done door
    down draw each early east edge end every fact fall far fast few field find fire first fit five flow food form four
    free from front full game gave give good graph great green group grow half hand hard have head hear heat help here
    high hold home hot hour house idea index into join just keep key kind know land large last late layer learn leave
    left less level light like line list live load local long look loop lower made main make many map mark match
"""
_PIECES = tuple(" " + word for word in _VOCABULARY.split()[:128])
_TOKENS = tuple(tokenizer.encode("".join(_PIECES)))


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends."""

    max_tokens: int
    natural_max: int
    """Longest natural length; the natural length is between half of it and it, and depends on the prompt."""
    min_tokens: int = 0
    ignore_eos: bool = False
    """No natural end: the answer has exactly `max_tokens` tokens."""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one choice says, one piece of text for each token. The last piece may be cut short by a stop string."""

    pieces: Sequence[str]
    tokens: Sequence[int]
    finish_reason: Literal["stop", "length"]
    stop_reason: str | None = None
    """The stop string that ended the answer."""


def compose(prompt: Sequence[int], limits: Limits, *, seed: int = 0, index: int = 0, adapter: str | None = None) -> Answer:
    """The answer to a prompt. Equal arguments give equal answers, in every process."""
    digest = _digest(prompt, seed, index, adapter)
    natural = max(_natural_length(digest, limits.natural_max), limits.min_tokens)
    stops = natural < limits.max_tokens and not limits.ignore_eos
    answer = _write(digest, natural if stops else limits.max_tokens, "stop" if stops else "length")
    return _cut(answer, limits) if limits.stop else answer


def _digest(prompt: Sequence[int], seed: int, index: int, adapter: str | None) -> bytes:
    person = hashlib.blake2b(adapter.encode(), digest_size=16).digest() if adapter else b""
    return hashlib.blake2b(array("I", prompt).tobytes() + struct.pack("<qq", seed, index), digest_size=32, person=person).digest()


def _natural_length(digest: bytes, longest: int) -> int:
    return longest - int.from_bytes(digest[4:8], "big") % (longest // 2 + 1)


def _write(digest: bytes, n_tokens: int, finish_reason: Literal["stop", "length"]) -> Answer:
    opening = f"Simulated answer {digest[:4].hex()}:"
    numbers = [byte & 127 for byte in hashlib.shake_128(digest).digest(n_tokens)]
    return Answer(
        pieces=(tokenizer.pieces(opening) + [_PIECES[number] for number in numbers])[:n_tokens],
        tokens=(tokenizer.encode(opening) + [_TOKENS[number] for number in numbers])[:n_tokens],
        finish_reason=finish_reason,
    )


def _cut(answer: Answer, limits: Limits) -> Answer:
    """The answer up to the first stop string that ends behind its first `min_tokens` tokens."""
    text = "".join(answer.pieces)
    behind = sum(map(len, answer.pieces[: limits.min_tokens]))
    found = [(text.find(stop, max(0, behind - len(stop) + 1)), stop) for stop in limits.stop]
    ends = [(start + len(stop), start, stop) for start, stop in found if start >= 0]
    if not ends:
        return answer
    end, start, stop = min(ends)
    kept: list[str] = []
    position = 0
    while position < end:
        piece = answer.pieces[len(kept)]
        kept.append(piece[: max(0, start - position)])
        position += len(piece)
    return Answer(kept, answer.tokens[: len(kept)], "stop", stop)
