"""How long is waited for the other end of an exchange."""

from dataclasses import dataclass

from deployments.errors import SilentError


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds. A reader that takes its time is not silence of the other end."""

    first_s: float
    """From the request to the first byte of the answer's body."""
    between_s: float
    """Between two pieces of it."""

    @property
    def shortest_s(self) -> float:
        return min(self.first_s, self.between_s)


class Silence:
    """Of one exchange. Times are of a clock that never goes back."""

    __slots__ = ("_has_begun", "_patience", "_since", "_waits")

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self._since = now
        self._has_begun = False
        self._waits = False

    def waits(self, now: float) -> None:
        """A reader waits from now on."""
        self._waits = True
        if self._has_begun:  # the time to the first byte counts from the request
            self._since = now

    def reads(self) -> None:
        """It does not wait any longer."""
        self._waits = False

    def begins(self) -> None:
        """Something of the body has come."""
        self._has_begun = True

    def error(self, now: float) -> SilentError | None:
        """None: there is still patience."""
        limit_s = self._patience.between_s if self._has_begun else self._patience.first_s
        return SilentError("the other end is silent", has_begun=self._has_begun) if self._waits and now - self._since > limit_s else None
