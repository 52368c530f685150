"""Whose turn it is when requests of several tenants wait: the tenant's that has had the least so far.

Virtual token counters (Sheng et al., OSDI 2024, arXiv 2401.00588), with weights: each flow's counter rises by the cost of what is sent on
of it, over its weight, and the least counter is next. A flow that begins to wait is lifted to the least counter of those that wait, less a
credit: so nobody saves up more than that of what it did not use. Without credit, who sends its share in bursts would wait as if there were
only its share of the engines. Of two flows that wait all the time, weighted costs differ by two requests at most. Deficit round robin gives
the same, but counters can be corrected later, when it is known what a request has cost, and those of several queues added up.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from cache.prefix.turns import Turns

T = TypeVar("T", bound=Hashable)

MAX_IDLE = 10_000
"""Counters that are kept of flows of which nothing waits."""


@dataclass(slots=True)
class _Flow(Generic[T]):
    weight: float
    counter: float
    since: int
    """Numbers flows in the order in which they began to wait."""
    turns: dict[int, Turns[T]] = field(default_factory=dict)
    """By priority; none is empty."""
    number: int = 0
    cost: float = 0.0
    """Of all that waits of it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    flow: str
    priority: int
    cost: float


class FairQueue(Generic[T]):
    """Items that wait, each once, of flows by their names. Costs are in tokens, weights above 0."""

    def __init__(self, window: int) -> None:
        """`window`: by how many younger ones of its flow an item may be overtaken, see `Turns`."""
        self._window = window
        self._flows: dict[str, _Flow[T]] = {}
        """Those of which something waits."""
        self._idle: OrderedDict[str, float] = OrderedDict()
        """Counters of others."""
        self._waiting: dict[T, _Waiting] = {}
        self._order = count()
        self._level = 0.0
        """The highest counter of a flow whose turn it was, before it was charged."""
        self.credit = 0.0
        """What a flow may save up, in tokens for a weight of 1."""

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self, flow: str) -> int:
        """Items of one flow."""
        found = self._flows.get(flow)
        return found.number if found else 0

    @property
    def weight(self) -> float:
        """Of the flows of which something waits, together."""
        return sum(flow.weight for flow in self._flows.values())

    def add(self, item: T, flow: str, weight: float, cost: float, *, priority: int = 0, cached: float = 0.0, computed: float = 1.0) -> None:
        """`priority`: within the flow, the lowest is next; `cached`, `computed`: see `Turns.add`."""
        found = self._flows.get(flow)
        if found is None:
            found = self._flows[flow] = _Flow(weight, self._lifted(flow, self._least()), next(self._order))
        found.weight = weight
        found.turns.setdefault(priority, Turns(self._window)).add(item, cached, computed)
        found.number += 1
        found.cost += cost
        self._waiting[item] = _Waiting(flow, priority, cost)

    def remove(self, item: T) -> None:
        """It waits no longer, and costs nothing. Unknown items are ignored."""
        waiting = self._waiting.get(item)
        if waiting is not None:
            self._flows[waiting.flow].turns[waiting.priority].remove(item)
            self._left(item)

    def passed(self, flow: str, weight: float, cost: float) -> None:
        """As if something had been added and popped at once, which is right where nothing waits."""
        counter = self._lifted(flow, self._level)
        self._level = max(self._level, counter)
        self._rest(flow, counter + cost / weight)

    def pop(self) -> tuple[T, float]:
        """Whose turn it is, and what its flow is charged. Raises `LookupError` if nobody waits."""
        if not self._flows:
            raise LookupError("nobody waits")
        flow = min(self._flows.values(), key=lambda each: (each.counter, -each.since))  # of equals, who has just come
        self._level = max(self._level, flow.counter)
        item = flow.turns[min(flow.turns)].pop()
        cost = self._waiting[item].cost
        flow.counter += cost / flow.weight
        self._left(item)
        return item, cost

    def charge(self, flow: str, weight: float, cost: float) -> None:
        """What a flow has had elsewhere, or other than was expected when it was its turn; then it may be negative."""
        found = self._flows.get(flow)
        if found is not None:
            found.counter += cost / weight
        else:
            self._rest(flow, self._idle.get(flow, self._level) + cost / weight)

    def wait_cost(self, flow: str, weight: float) -> float:
        """What is sent on before an item that `flow` adds now: what waits of it, and what others have by their weights meanwhile."""
        own = self._flows.get(flow)
        before = own.cost if own else 0.0
        return before + sum(min(each.cost, before * each.weight / weight) for name, each in self._flows.items() if name != flow)

    def _lifted(self, flow: str, least: float) -> float:
        """The counter with which a flow begins to wait. One that nobody knows has saved up nothing."""
        known = self._idle.pop(flow, None)
        return least if known is None else max(known, least - self.credit)

    def _least(self) -> float:
        return min((flow.counter for flow in self._flows.values()), default=self._level)

    def _left(self, item: T) -> None:
        waiting = self._waiting.pop(item)
        flow = self._flows[waiting.flow]
        flow.number -= 1
        flow.cost -= waiting.cost
        if not len(flow.turns[waiting.priority]):
            del flow.turns[waiting.priority]
        if not flow.turns:
            del self._flows[waiting.flow]
            self._rest(waiting.flow, flow.counter)

    def _rest(self, flow: str, counter: float) -> None:
        self._idle[flow] = counter
        self._idle.move_to_end(flow)
        if len(self._idle) > MAX_IDLE:
            self._idle.popitem(last=False)
