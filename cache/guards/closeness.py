"""How far two questions are apart in content."""

from cache.guards.text import Question

MOST = 2


def close(a: Question, b: Question) -> bool:
    """At most so many content words on either side that the other lacks: what differs besides decides."""
    left, right = frozenset(a.content), frozenset(b.content)
    return len(left - right) <= MOST and len(right - left) <= MOST
