"""A tenant's error budget: earned by requests, spent by hits.

vCache's rule (arXiv 2502.03771, section 4) keeps every single request within the budget, by chance: at 2 %, what is 90 % sure is served
one time in five, and what is 2 % sure one time in fifty. Here the requests that serve nothing pay for those that do, and the surest hits
come first: an account earns the budget's share of each request, and a hit takes from it a bound on the probability that it is wrong
(`Belief.error`). What a hit may cost rises with what has been saved up, so that spending follows earning. The sum of what is spent is
never above what was earned, and so the expected number of wrong answers stays within the budget.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

CAPACITY = 2.0
"""Wrong answers that may be saved up: a quiet time must not be followed by carelessness."""
HIGHEST_PRICE = 0.5
MAX_ACCOUNTS = 10_000


BudgetOf = Literal["requests", "hits"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be wrong: a share of all requests (as vCache promises), or of the hits (what many take that for)."""

    share: float
    of: BudgetOf = "requests"


@dataclass(slots=True)
class Account:
    """In wrong answers. Not thread-safe."""

    saved: float = 0.0

    def earn(self, budget: Budget) -> None:
        """For a request, whatever becomes of it."""
        if budget.of == "requests":
            self.saved = min(CAPACITY, self.saved + budget.share)

    def pay(self, error: float, budget: Budget) -> bool:
        """Takes a hit that is wrong with this probability, if that can be afforded."""
        own = budget.share if budget.of == "hits" else 0.0  # what the hit itself earns
        if error > self.saved + own or error > own + self.saved / CAPACITY * (HIGHEST_PRICE - own):
            return False
        self.saved = min(CAPACITY, self.saved + own - error)
        return True


@dataclass(slots=True)
class Accounts:
    """Of the namespaces seen last, `MAX_ACCOUNTS`; another one begins with nothing saved. Thread-safe."""

    _accounts: OrderedDict[str, Account] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def earn(self, namespace: str, budget: Budget) -> None:
        with self._lock:
            self._of(namespace).earn(budget)

    def pay(self, namespace: str, error: float, budget: Budget) -> bool:
        with self._lock:
            return self._of(namespace).pay(error, budget)

    def _of(self, namespace: str) -> Account:
        account = self._accounts.setdefault(namespace, Account())
        self._accounts.move_to_end(namespace)
        while len(self._accounts) > MAX_ACCOUNTS:
            self._accounts.popitem(last=False)
        return account
