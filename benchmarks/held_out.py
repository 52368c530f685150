"""The labelled pairs that a verifier may be measured on."""

from pathlib import Path

from benchmarks.report import say
from cache.bert.precision import in_float32
from cache.verifiers.base import Verifier
from cache.verifiers.pairs import LabelledPair, digest, part_of, read_pairs


def held_out(path: Path, verifier: Verifier) -> list[LabelledPair]:
    """All of the file, or the test part if the verifier was trained on it."""
    pairs = read_pairs(path)
    if not in_float32(verifier.name).endswith(digest(pairs)):
        return pairs
    say("the verifier was trained on this file: only its test part is used")
    return [pair for pair in pairs if part_of(pair) == "test"]
