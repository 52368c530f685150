"""One beginning of prompts that an ingress looks after, and who wants it kept."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cache.prefix.keys import Tokens
from deployments.prefix_keeper import Order

AGAIN_S = 5.0
"""After which one is tried again that no replica has room for."""

State = Literal["new", "kept", "full"]
"""`full`: no replica has room."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A prefix in whole blocks, of which there is one at least."""

    keys: Sequence[int]
    tokens: Tokens
    salt: str
    adapter: str | None = None
    """Whose KV it is."""

    def within(self, longer: "Chain") -> "Chain":
        """The same, in the memory of one that it begins: of a long chat every turn may be marked."""
        return replace(self, keys=longer.keys[: len(self.keys)], tokens=longer.tokens[: len(self.tokens)])


@dataclass(slots=True)
class Hold:
    """That a tenant wants a prefix kept, for one reason of perhaps several."""

    owner: str
    """The tenant's namespace."""
    until: float
    """On the clock."""


@dataclass(slots=True)
class KeptPrefix:
    """A context and marks may have equal chains: the prefix is kept until the last of them ends."""

    chain: Chain
    holds: dict[str, Hold] = field(default_factory=dict)
    """By holder."""
    state: State = "new"
    replica: str = ""
    """That keeps it. Empty: none does."""
    asking: str = ""
    """That is being asked to keep it."""
    again_s: float = AGAIN_S
    was_kept: bool = False
    told: dict[str, float] = field(default_factory=dict)
    """The ends that the replica was told, by holder."""
    uses: int = 0
    recomputed: int = 0
    """As the replica said last."""
    next_try: float = -math.inf
    task: "asyncio.Task[None] | None" = None
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """A replica was found for it once, or that none has room."""

    @property
    def key(self) -> int:
        return self.chain.keys[-1]

    @property
    def until(self) -> float:
        return max((hold.until for hold in self.holds.values()), default=-math.inf)

    @property
    def until_told(self) -> float:
        return max(self.told.values(), default=-math.inf)

    def is_held_by(self, owner: str, now: float) -> bool:
        return any(hold.owner == owner and hold.until > now for hold in self.holds.values())

    def forget_ended(self, now: float) -> list[str]:
        """Returns whose the holds were that are over: an owner for each."""
        ended = [holder for holder, hold in self.holds.items() if hold.until <= now]
        return [self.holds.pop(holder).owner for holder in ended]

    def is_news(self, by_s: float) -> bool:
        """Whether ends differ from those that the replica was told by more than `by_s` seconds, or holders are others."""
        if self.told.keys() != self.holds.keys():
            return True
        return any(abs(self.told[holder] - hold.until) > by_s for holder, hold in self.holds.items())

    def order(self, now: float, *, whole: bool = False, waits: bool = False) -> Order:
        """What its replica is to be told, also of those who do not hold it any longer; `whole`: with its tokens."""
        ends = dict.fromkeys(self.told, 0.0) | {holder: hold.until - now for holder, hold in self.holds.items()}
        if not whole:
            return Order(self.key, ends)
        return Order(self.key, ends, self.chain.salt, self.chain.adapter, self.chain.tokens.tobytes(), waits)

    def heard(self, order: Order, now: float) -> None:
        """Its replica was told this; `now`: when it was written."""
        self.told = {holder: now + for_s for holder, for_s in order.ends.items() if for_s > 0}

    def leave(self) -> set[tuple[int, str]]:
        """What a replica may think that holds it, by key and holder: it is told nothing any longer."""
        holders = self.told.keys() | self.holds.keys()
        self.told = {}
        return {(self.key, holder) for holder in holders}

    def has_no_place(self, from_s: float) -> None:
        """Until one is found for it, which may be tried `from_s` on the clock."""
        self.replica, self.state, self.next_try = "", "new", from_s
