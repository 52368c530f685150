"""Whose turn it is when requests of several tenants wait: the tenant's that has had the least so far.

Virtual token counters (Sheng et al., OSDI 2024, arXiv 2401.00588), with weights: each flow's counter rises by the cost of what is sent on
of it, over its weight, and the least counter is next. A flow that begins to wait is lifted to the least counter of those that wait, less a
credit: so nobody saves up more than that of what it did not use. Without credit, who sends its share in bursts would wait as if there were
only its share of the engines. Of two flows that wait all the time, weighted costs differ by two requests at most. Deficit round robin gives
the same, but counters can be corrected later, when it is known what a request has cost, and those of several queues added up.

Several queues that wait for the same act as one if each tells the others what it has charged its flows (`accounts`), and the others charge
them, too (`hear`). A flow has one counter then, whichever queue it is in. Counters of queues that begin apart are brought together by
lifting: none that waits is further behind the least of the others' than its credit.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import count, islice
from typing import Generic, NamedTuple, TypeVar

from cache.prefix.turns import Turns

T = TypeVar("T", bound=Hashable)

MAX_IDLE = 10_000
"""Counters that are kept of flows of which nothing waits."""


class FlowAccount(NamedTuple):
    """What one queue tells the others of a flow."""

    flow: str
    waiting: int
    """Items that wait of it there."""
    weight: float
    counter: float
    charged: float
    """What that queue has charged it, ever: costs over weights."""


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
        self._charged: OrderedDict[str, float] = OrderedDict()
        """What flows were charged here, ever; those that were charged last are last."""
        self.credit = 0.0
        """What a flow may save up, in tokens for a weight of 1."""
        self.least_elsewhere = math.inf
        """The least counter of what waits in other queues."""

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self, flow: str) -> int:
        """Items of one flow."""
        found = self._flows.get(flow)
        return found.number if found else 0

    @property
    def weights(self) -> dict[str, float]:
        """Of the flows of which something waits."""
        return {name: flow.weight for name, flow in self._flows.items()}

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
        self._rest(flow, counter)
        self.charge(flow, weight, cost)

    def head(self) -> tuple[str, float]:
        """The flow whose turn it is, and its counter. Raises `LookupError` if nobody waits."""
        if not self._flows:
            raise LookupError("nobody waits")
        name = min(self._flows, key=lambda each: (self._flows[each].counter, -self._flows[each].since))  # of equals, who has just come
        return name, self._flows[name].counter

    def mean_cost(self, flow: str) -> float:
        """Of what waits of it, over its weight."""
        found = self._flows[flow]
        return found.cost / found.number / found.weight

    def pop(self) -> tuple[T, float]:
        """Whose turn it is, and what its flow is charged. Raises `LookupError` if nobody waits."""
        name, counter = self.head()
        flow = self._flows[name]
        self._level = max(self._level, counter)
        item = flow.turns[min(flow.turns)].pop()
        cost = self._waiting[item].cost
        self.charge(name, flow.weight, cost)
        self._left(item)
        return item, cost

    def charge(self, flow: str, weight: float, cost: float) -> None:
        """What a flow has had; or has had beyond what was expected when it was its turn: then it may be negative."""
        counter = self.counter(flow)
        self._set(flow, (self._level if counter is None else counter) + cost / weight)
        self._charged[flow] = self._charged.pop(flow, 0.0) + cost / weight
        if len(self._charged) > MAX_IDLE:
            self._charged.popitem(last=False)

    def counter(self, flow: str) -> float | None:
        """None: nothing is known of it."""
        found = self._flows.get(flow)
        return found.counter if found else self._idle.get(flow)

    def accounts(self, most: int) -> list[FlowAccount]:
        """Of the flows that wait, and of those that were charged last: so many of each at most."""
        waiting = nsmallest(most, self._flows, key=lambda name: self._flows[name].counter)
        names = dict.fromkeys((*waiting, *islice(reversed(self._charged), most)))
        return [self._account(name) for name in names]

    def _account(self, name: str) -> FlowAccount:
        flow = self._flows.get(name)
        waiting, weight, counter = (flow.number, flow.weight, flow.counter) if flow else (0, 0.0, self._idle.get(name, 0.0))
        return FlowAccount(name, waiting, weight, counter, self._charged.get(name, 0.0))

    def hear(self, told: FlowAccount, before: FlowAccount | None) -> None:
        """What another queue tells of a flow, and told before."""
        counter, is_new = self.counter(told.flow), before is None or (told.waiting and not before.waiting)
        if counter is None:
            self._set(told.flow, told.counter)
            return
        charged = told.charged - before.charged if before else 0.0
        if charged > 0 and not is_new:
            self._level = max(self._level, counter)
        counter += charged
        # What both know is under way between them: only what begins to wait, or is far ahead, has been lifted there.
        self._set(told.flow, max(counter, told.counter) if is_new or told.counter > counter + self.credit else counter)

    def lift(self) -> None:
        """No flow that waits is further behind than its credit."""
        for flow in self._flows.values():
            flow.counter = max(flow.counter, self.least_elsewhere - self.credit) if self.least_elsewhere < math.inf else flow.counter

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
        least = min((flow.counter for flow in self._flows.values()), default=math.inf)
        least = min(least, self.least_elsewhere)
        return self._level if least == math.inf else least

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

    def _set(self, flow: str, counter: float) -> None:
        if flow in self._flows:
            self._flows[flow].counter = counter
        else:
            self._rest(flow, counter)

    def _rest(self, flow: str, counter: float) -> None:
        self._idle[flow] = counter
        self._idle.move_to_end(flow)
        if len(self._idle) > MAX_IDLE:
            self._idle.popitem(last=False)
