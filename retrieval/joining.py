"""Prompts at the level of tokens: documents are tokenized once each, and joined in any order.

Tokenizers cut a text into words first, and no token is of two words. Between a block, which ends with a blank line, and what follows,
which begins with a visible character, there is such a cut; but some cut the blank line itself otherwise where a text ends. So a block is
tokenized with a bracket behind it, whose tokens are taken off again. Where a tokenizer has no such cuts, joined tokens may differ from
those of the joined text: whoever joins compares them now and then, and does without if they do.
"""

from collections.abc import Sequence

import numpy as np

from cache.prefix.keys import Tokens

BRACKET = "["
"""What a block begins with, and what is put behind one to be tokenized."""


def mark(label: str) -> str:
    """A block that stands for all blocks while their order is not known. The label must be one that nobody can guess."""
    return f"[{label}]\n.\n\n"


def without_bracket(tokens: Tokens, bracket: Tokens) -> Tokens | None:
    """A block's tokens, from those of the block and `BRACKET`. None: they cannot be told apart."""
    at = len(tokens) - len(bracket)
    return tokens[:at] if at >= 0 and np.array_equal(tokens[at:], bracket) else None


def split(prompt: Tokens, mark_tokens: Tokens) -> tuple[Tokens, Tokens] | None:
    """What is before and behind the mark. None: it is not there as a whole, or twice."""
    size = len(mark_tokens)
    if not 0 < size <= len(prompt):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(prompt, size)
    starts = np.flatnonzero((windows == mark_tokens).all(axis=1))
    return (prompt[: starts[0]], prompt[starts[0] + size :]) if len(starts) == 1 else None


def separated(numbers: Tokens, count: int) -> Sequence[Tokens]:
    """Lists of tokens from their lengths, which come first, and all of them. Raises `ValueError` for anything else."""
    lengths = numbers[:count].astype(np.int64)
    if len(lengths) < count or lengths.sum() != len(numbers) - count:
        raise ValueError("not the tokens of so many texts")
    return np.split(numbers[count:], np.cumsum(lengths)[:-1])
