"""The tenants' beliefs, learnt from the store's observations."""

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable

from cache.decision.belief import Belief, Counts, Effect, Prior, entry_effect
from cache.stores.evidence import Observation, SqlEvidenceStore

REFRESH_S = 2.0
PAGE = 5000
MAX_READ = 40_000
"""Observations that are read when a tenant comes, two half-lives of them: a look-up waits for it."""
MAX_OF_ONE = 10
"""Observations of one tenant, of each kind, that count for the others: else whoever has the most would teach all."""
MAX_TENANTS = 1000
"""Each takes up to 50 kB."""


class Beliefs:
    """Beliefs of each (namespace, kind), at most `REFRESH_S` seconds behind the store. Thread-safe.

    Of the tenants seen last, `MAX_TENANTS` are held; another one's observations are read anew when it comes back.
    """

    def __init__(self, evidence: SqlEvidenceStore, priors: dict[str, Prior], scorer: str, clock: Callable[[], float]) -> None:
        """`priors`: by kind of score. `scorer`: whose scores are asked about (`Observation`). `clock` gives seconds, on any scale."""
        self._evidence = evidence
        self._scorer = scorer
        self._priors = priors
        self._clock = clock
        self._lock = threading.Lock()
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._everybody = _Tenant(MAX_OF_ONE)

    def tenant(self, namespace: str, kind: str) -> Belief:
        """The belief over (intercept, slope). May raise `StoreError`."""
        with self._lock:
            tenant = self._tenants.setdefault(namespace, _Tenant())
            self._tenants.move_to_end(namespace)
            while len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
            for name, each in ((namespace, tenant), (None, self._everybody)):
                if self._clock() >= each.due:
                    self._refresh(name, each)
                    tenant.beliefs.clear()
            return tenant.belief(kind, self._priors[kind], self._everybody)

    def entry(self, namespace: str, kind: str, entry_id: str) -> Effect:
        """The entry's own effect. May raise `StoreError`."""
        seen = self._evidence.of_entry(entry_id, kind, self._scorer)
        return entry_effect(self.tenant(namespace, kind), self._priors[kind], [(each.score, each.correct) for each in seen])

    def _refresh(self, namespace: str | None, tenant: "_Tenant") -> None:
        if tenant.mark is None:
            tenant.mark = self._evidence.mark(namespace, MAX_READ)
        while True:
            seen, tenant.mark = self._evidence.behind(tenant.mark, namespace, self._scorer, PAGE)
            tenant.add(seen)
            if len(seen) < PAGE:
                break
        tenant.due = self._clock() + REFRESH_S


class _Tenant:
    def __init__(self, max_of_one: int | None = None) -> None:
        """`max_of_one`: observations of each (namespace, kind) that count; None: all."""
        self.mark: int | None = None
        self.due = float("-inf")
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.beliefs: dict[str, Belief] = {}
        self._max_of_one = max_of_one
        self._taken: Counter[tuple[str, str]] = Counter()

    def add(self, seen: list[Observation]) -> None:
        for each in seen:
            if self._max_of_one is not None:
                self._taken[each.namespace, each.kind] += 1
                if self._taken[each.namespace, each.kind] > self._max_of_one:
                    continue
            self.counts[each.kind].add(each.score, each.correct)

    def belief(self, kind: str, prior: Prior, everybody: "_Tenant") -> Belief:
        if kind not in self.beliefs:
            self.beliefs[kind] = self.counts[kind].belief(prior, everybody.counts[kind])
        return self.beliefs[kind]
