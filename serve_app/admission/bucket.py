"""Token buckets: what may be taken in a minute, refilled all the time."""

SECONDS = 60.0


class Bucket:
    """Holds `limit` at most, and is full at first. Times are seconds of one clock.

    What turns out to have been more than was taken may leave it below zero: then it has to fill up first, so that in the long run the limit
    holds whatever was expected.
    """

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at = now

    def level(self, now: float) -> float:
        if now > self._at:  # a clock that goes back refills nothing
            self._level = min(self.limit, self._level + (now - self._at) * self.limit / SECONDS)
            self._at = now
        return self._level

    def resize(self, limit: int, now: float) -> None:
        """Another limit from now on; what was taken stays taken."""
        self._level = self.level(now) + limit - self.limit
        self.limit = limit

    def wait_s(self, amount: float, now: float) -> float:
        """Until `amount` could be taken: 0 if it can be now. What is more than the limit can be when the bucket is full."""
        missing = min(amount, self.limit) - self.level(now)
        if missing <= 0 and self.limit:
            return 0.0
        return missing * SECONDS / self.limit if self.limit else SECONDS

    def full_s(self, now: float) -> float:
        """Until it is full."""
        return (self.limit - self.level(now)) * SECONDS / self.limit if self.limit else SECONDS

    def take(self, amount: float, now: float) -> None:
        """Whether there is so much or not; what is negative is given back."""
        self._level = min(self.level(now) - amount, self.limit)
