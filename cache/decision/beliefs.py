"""The tenants' beliefs, learnt from the store's observations."""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from cache.decision.belief import Belief, Counts, Effect, Prior, entry_effect
from cache.stores.evidence import Observation, SqlEvidenceStore

REFRESH_S = 2.0
PAGE = 5000
MAX_TENANTS = 10_000


class Beliefs:
    """Beliefs of each (namespace, kind), at most `REFRESH_S` seconds behind the store. Thread-safe.

    Of the tenants seen last, `MAX_TENANTS` are held; another one's observations are read anew when it comes back.
    """

    def __init__(self, evidence: SqlEvidenceStore, priors: dict[str, Prior], clock: Callable[[], float]) -> None:
        """`priors`: by kind of score. `clock` gives seconds, on any scale."""
        self._evidence = evidence
        self._priors = priors
        self._clock = clock
        self._lock = threading.Lock()
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._everybody = _Tenant()

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
        seen = [each for each in self._evidence.of_entries([entry_id]).get(entry_id, []) if each.kind == kind]
        return entry_effect(self.tenant(namespace, kind), self._priors[kind], [(each.score, each.correct, each.weight) for each in seen])

    def _refresh(self, namespace: str | None, tenant: "_Tenant") -> None:
        while True:
            seen, tenant.mark = self._evidence.recent(namespace, PAGE, tenant.mark)
            tenant.add(seen)
            if len(seen) < PAGE:
                break
        tenant.due = self._clock() + REFRESH_S


class _Tenant:
    def __init__(self) -> None:
        self.mark = 0
        self.due = float("-inf")
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.beliefs: dict[str, Belief] = {}

    def add(self, seen: list[Observation]) -> None:
        for each in seen:
            self.counts[each.kind].add(each.score, each.correct, each.weight)

    def belief(self, kind: str, prior: Prior, everybody: "_Tenant") -> Belief:
        if kind not in self.beliefs:
            self.beliefs[kind] = self.counts[kind].belief(prior, everybody.counts[kind])
        return self.beliefs[kind]
