"""How much JSON is read. A body of the longest length may have eight million values: they would hold up all other requests for seconds."""

import re

MAX_VALUES = 200_000
"""Values and keys in one body: those of a prompt of so many tokens, or of ten thousand messages, and about half a second of a core."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Also one without an end: looking for that again behind each quotation mark would take forever."""
_BEGINNING = 1 << 20


def has_too_many_values(body: bytes) -> bool:
    """Without parsing it. Of what is no JSON it does not matter what this says."""
    if len(body) < 2 * MAX_VALUES or _marks(body) <= MAX_VALUES:  # each has a byte before or behind it
        return False
    # Texts have such marks, too. To take them out of a body that is nothing but short ones takes seconds; it shows at its beginning.
    return any(_marks(_STRING.sub(b"", part)) > MAX_VALUES for part in (body[:_BEGINNING], body))


def _marks(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{") + body.count(b":")
