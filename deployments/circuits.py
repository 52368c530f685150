"""Circuit breakers: a replica that keeps failing is passed over for a while, and let in again by one request.

The three states and the single probe are Nygard's (*Release It!*, 2007, "Circuit Breaker"). By failures in a row a circuit opens there; by
their share of the last outcomes, as in resilience4j. Each opening lasts longer than the one before, and somebody is always asked, as in
Envoy's outlier detection.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Literal

State = Literal["closed", "open", "half_open"]
STATES: tuple[State, ...] = ("closed", "open", "half_open")
Reason = Literal["refused", "lost", "first_token", "between_tokens"]
"""What failed: the connection, or the replica said that it is dead; an answer that broke off; one that was given up."""

IN_A_ROW = 3
"""Failures that open a circuit."""
WINDOW = 20
SHARE = 0.5
"""So many of the last `WINDOW` outcomes do so, too, once there are `ENOUGH`."""
ENOUGH = 10
FIRST_S = 5.0
LONGEST_S = 60.0
"""How long a circuit is open: at first, and at most. Each time twice as long as the last, until a request is answered."""


class Circuit:
    """Of one replica."""

    def __init__(self) -> None:
        self.openings = 0
        """Since an answer last came: how bad it is."""
        self._in_a_row = 0
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._until: float | None = None
        """When it may be probed; None: it is closed."""
        self._is_probed = False

    def state(self, now: float) -> State:
        if self._until is None:
            return "closed"
        return "half_open" if self._is_probed or now >= self._until else "open"

    def passes(self, now: float) -> bool:
        """A request may be sent."""
        return self._until is None or (now >= self._until and not self._is_probed)

    def asked(self, now: float) -> None:
        """One is. While it is open, that is the probe, or nobody else was there to ask."""
        self._is_probed = self._until is not None and now >= self._until

    def left(self) -> None:
        """The request ended before anything was known: the next one is the probe."""
        self._is_probed = False

    def answered(self) -> None:
        if self._until is not None and not self._is_probed:  # of a request from before, or that had nobody else to go to
            return
        if self._until is not None:
            self._outcomes.clear()  # what was before it recovered says nothing any more
        self._until, self._is_probed, self.openings, self._in_a_row = None, False, 0, 0
        self._outcomes.append(True)

    def failed(self, now: float) -> bool:
        """Whether that has opened it."""
        self._outcomes.append(False)
        self._in_a_row += 1
        if self._until is not None and not self._is_probed:  # of a request from before
            return False
        if self._until is None and self._in_a_row < IN_A_ROW and not self._fails_often():
            return False
        self._until, self._is_probed = now + min(FIRST_S * 2**self.openings, LONGEST_S), False
        self.openings += 1
        return True

    def _fails_often(self) -> bool:
        return len(self._outcomes) >= ENOUGH and self._outcomes.count(False) >= SHARE * len(self._outcomes)


class Circuits:
    """Those of one deployment's replicas, by id. Belongs to an event loop."""

    def __init__(self, clock: Callable[[], float], opened: Callable[[Reason], None] = lambda reason: None) -> None:
        """`opened` hears of each opening."""
        self._clock = clock
        self.opened = opened
        self._circuits: dict[str, Circuit] = {}

    def passes(self, replica: str) -> bool:
        circuit = self._circuits.get(replica)
        return circuit is None or circuit.passes(self._clock())

    def badness(self, replica: str) -> int:
        """0 where nothing is known of it."""
        circuit = self._circuits.get(replica)
        return circuit.openings if circuit else 0

    def asked(self, replica: str) -> None:
        """A request is sent to it. `answered`, `failed` or `left` follows."""
        self._of(replica).asked(self._clock())

    def answered(self, replica: str) -> None:
        """The first token has come. The answer may fail all the same."""
        self._of(replica).answered()

    def failed(self, replica: str, reason: Reason) -> None:
        if self._of(replica).failed(self._clock()):
            self.opened(reason)

    def left(self, replica: str) -> None:
        """The request was given up, by its client or because the replica is full."""
        self._of(replica).left()

    def keep(self, replicas: Collection[str]) -> None:
        """The others have gone."""
        self._circuits = {name: circuit for name, circuit in self._circuits.items() if name in replicas}

    def counts(self, replicas: Collection[str]) -> dict[str, int]:
        """How many of these are in each state."""
        now = self._clock()
        states: Counter[str] = Counter(self._circuits[name].state(now) if name in self._circuits else "closed" for name in replicas)
        return {state: states[state] for state in STATES}

    def _of(self, replica: str) -> Circuit:
        return self._circuits.setdefault(replica, Circuit())
