"""Many short texts at once.

What a search costs for each text is more than what it costs for a few letters, and a request may have hundreds of thousands of them. So
they are searched together first, and alone only where something was found.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

from serve_app.content.base import Matcher
from serve_app.content.stream import BLOCK_CHARS

SHORT_CHARS = 1024
MAX_IN_QUESTION = 20_000
"""Short texts of one request that rules may have something to say of."""
_BETWEEN = "\n\0\n"
"""Each text has lines of its own, and no word goes on from one to the next."""


def in_question(texts: Collection[str], rules: Matcher) -> set[str]:
    """All texts in which there is a match, those that are not short, and maybe a few others. Of more than `MAX_IN_QUESTION` short ones
    only some: see `is_too_much`.
    """
    found = {text for text in texts if len(text) > SHORT_CHARS}
    most = len(found) + MAX_IN_QUESTION
    for block in _blocks([text for text in texts if len(text) <= SHORT_CHARS]):
        starts = [0, *accumulate(len(text) + len(_BETWEEN) for text in block)]
        found.update(block[bisect_right(starts, place) - 1] for place in rules.begins(_BETWEEN.join(block)))
        if len(found) > most:
            break
    return found


def is_too_much(found: Collection[str]) -> bool:
    """Whether there may be more in question than these."""
    return sum(len(text) <= SHORT_CHARS for text in found) > MAX_IN_QUESTION


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    first = chars = 0
    for number, text in enumerate(texts):
        chars += len(text) + len(_BETWEEN)
        if chars > BLOCK_CHARS:
            yield texts[first : number + 1]
            first, chars = number + 1, 0
    if first < len(texts):
        yield texts[first:]
