"""Whether two answers say the same: the label that the verified decision learns from."""

from typing import Any

import msgspec
import numpy as np

from cache.embedders.base import Embedder
from cache.guards.cascade import refusals
from cache.guards.text import normal_form, parse

SAME, DIFFERENT = 0.92, 0.75
"""Cosines of two answers from which on, and below which, they are taken for the same and for different."""
HARD_FACTS = {"numbers", "units", "negation", "antonyms", "identifiers", "swapped_names"}
"""Guards whose refusal means that two answers say different things, however close their vectors are."""


class AnswerJudge:
    """Compares answers by their text, then by their vectors. Thread-safe if the embedder is. May raise `EmbedderError`."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def same(self, kept: str, fresh: str) -> bool | None:
        """None: it cannot be told, and nothing is to be learnt."""
        if normal_form(kept) == normal_form(fresh):
            return True
        similarity = float(np.dot(*self._embedder.embed([kept, fresh])))
        if similarity < DIFFERENT:  # also of what the embedder sees the beginning of: else only the right ones of long answers would count
            return False
        if any(refusal.guard in HARD_FACTS for refusal in refusals(parse(kept), parse(fresh))):
            return False
        return True if similarity >= SAME and all(self._embedder.covers([kept, fresh])) else None


def answer_text(answer: bytes) -> str | None:
    """The text of a kept answer's first choice (OpenAI's chat or text completion). None: there is none, as with tool calls."""
    try:
        choice: dict[str, Any] = msgspec.json.decode(answer)["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() else None
