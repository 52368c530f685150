"""What the retrieval deployment counts, for `/metrics`."""

from dataclasses import fields
from typing import Any

from retrieval.result_cache import Counts

SEARCHED = {"exact": "exact", "near": "near", "misses": "miss"}
LEFT = {"evicted": "evicted", "outdated": "outdated"}


class ResultMetrics:
    """Tells Ray's agent how counts have grown. To be made inside a replica."""

    def __init__(self, counter: Any = None) -> None:
        """`counter`: makes a metric of a name, a description and its tag; Ray's by default."""
        make = counter or _ray_counter
        self._searches = make("mygo_retrieval_searches", "Queries of searches, by what the result cache had for them.", "outcome")
        self._left = make("mygo_retrieval_results_dropped", "Results that the cache does not hold any more, by reason.", "reason")
        self._told = Counts()

    def tell(self, counts: Counts) -> None:
        grown = {each.name: getattr(counts, each.name) - getattr(self._told, each.name) for each in fields(Counts)}
        self._told = counts
        for metric, tag, names in ((self._searches, "outcome", SEARCHED), (self._left, "reason", LEFT)):
            for name, value in names.items():
                if grown[name] > 0:  # Ray refuses to add nothing
                    metric.inc(grown[name], tags={tag: value})


def _ray_counter(name: str, description: str, tag: str) -> Any:
    from ray.serve.metrics import Counter

    return Counter(name, description, tag_keys=(tag,))
