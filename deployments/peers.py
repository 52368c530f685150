"""Whose turn it is among ingresses. Each sends its own tenants' requests in a fair order; while several have some that wait, whoever has
sent more than its part lets the others go first. What they have is told by the replicas.
"""

from collections.abc import Callable

FRESH_S = 1.5
"""What was told longer ago is not true any more."""
MAX_BALANCE = 16_384.0
"""Tokens for a weight of 1: more than a moment's difference is not made up for."""
PATIENCE_S = 0.25
"""Others that send nothing for so long, though they could, are not waited for."""


class Peers:
    """As one ingress sees them. Weights are the sum of those of the tenants that have requests waiting; `clock` never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queued = 0.0
        self._told_at = float("-inf")
        self._sent: dict[str, int] = {}
        self._balance = 0.0
        """What this ingress has sent, less what the others have, since both have requests waiting; in tokens for a weight of 1."""
        self._one = 0.0
        """About what a request adds to it."""
        self._moved_at = float("-inf")

    @property
    def are_waiting(self) -> bool:
        """Others have requests that wait."""
        return self._queued > 0 and self._clock() - self._told_at <= FRESH_S

    def told(self, replica: str, queued: float, sent: int) -> None:
        """By one replica: weights of the others that wait, and tokens that they have sent there, ever."""
        before, self._sent[replica] = self._sent.get(replica, sent), sent
        was_waiting = self.are_waiting
        self._queued, self._told_at = queued, self._clock()
        if not self.are_waiting or not was_waiting:
            self._balance, self._moved_at = 0.0, self._clock()
        elif sent > before:  # less: the replica has begun anew
            self._balance = max(self._balance - (sent - before) / queued, -MAX_BALANCE)
            self._moved_at = self._clock()

    def forget(self, replica: str) -> None:
        self._sent.pop(replica, None)

    def sent(self, tokens: float, weight: float) -> None:
        """This ingress has sent a request; `weight`: of its tenants that wait, that request's included."""
        if not self.are_waiting:
            return
        if self._balance <= self._one:
            self._moved_at = self._clock()
        self._balance = min(self._balance + tokens / weight, MAX_BALANCE)
        self._one += (tokens / weight - self._one) / 8 if self._one else tokens / weight

    def go_first(self) -> bool:
        """Whether the others do: being ahead by a request is no reason, or engines would wait for the news of each."""
        if self._balance <= 1.5 * self._one or not self.are_waiting:
            return False
        if self._clock() - self._moved_at > PATIENCE_S:
            self._balance = 0.0
            return False
        return True
