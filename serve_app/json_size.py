"""How much there is in a JSON text, told before it is read.

Reading takes time by what there is, not by bytes, and all requests of a process wait meanwhile: sixteen megabytes of `{},` take seconds and
400 MB of memory; the same in one text, milliseconds.
"""

import re

MAX_PARTS = 200_000
"""Objects, lists and fields."""
MAX_ITEMS = 2_000_000
"""Values in them: prompts may be lists of token ids."""
MAX_TEXTS = 500_000
"""Values and names that are texts."""
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""To the end, if it has none: else each quote in it would be tried as the beginning of another."""


def is_too_much(body: bytes) -> bool:
    """Whether it has more than `MAX_PARTS`, `MAX_ITEMS` or `MAX_TEXTS`. Right for JSON; of what is none it may say either."""
    if len(body) <= MAX_PARTS or not _has_much(body):
        return False
    if body.count(b'"') - body.count(rb"\"") > 2 * MAX_TEXTS:
        return True
    return _has_much(_TEXT.sub(b"", body))  # most of that may be what texts have


def _has_much(body: bytes) -> bool:
    return sum(map(body.count, (b"{", b"[", b":"))) > MAX_PARTS or body.count(b",") > MAX_ITEMS
