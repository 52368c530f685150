"""What the retrieval deployment counts, for `/metrics`."""

from collections.abc import Mapping
from typing import Any

from retrieval.ingest import IngestCounts
from retrieval.result_cache import Counts


class RetrievalMetrics:
    """Tells Ray's agent how counts have grown. To be made inside a replica."""

    def __init__(self, counter: Any = None, gauge: Any = None) -> None:
        """They make a metric of a name, a description and the keys of its tags; Ray's by default."""
        if counter is None or gauge is None:
            from ray.serve.metrics import Counter, Gauge

            counter, gauge = counter or Counter, gauge or Gauge
        self._searches = counter("mygo_retrieval_searches", "Queries of searches, by what the result cache had for them.", ("outcome",))
        self._left = counter("mygo_retrieval_results_dropped", "Results that the cache does not hold any more, by reason.", ("reason",))
        self._files = counter("mygo_ingest_files", "Files that were to be read into collections, by what became of them.", ("status",))
        self._chunks = counter("mygo_ingest_chunks", "Chunks of files that were encoded and stored.", ())
        self._seconds = counter("mygo_ingest_seconds", "Time that threads spent on files, pauses included.", ())
        self._waiting = gauge("mygo_ingest_waiting_files", "Files that wait to be read into collections, or are being read.", ())
        self._told: dict[tuple[Any, str], float] = {}

    def tell(self, results: Counts, ingest: IngestCounts, waiting: int) -> None:
        self._grown(self._searches, "outcome", {"exact": results.exact, "near": results.near, "miss": results.misses})
        self._grown(self._left, "reason", {"evicted": results.evicted, "outdated": results.outdated})
        self._grown(self._files, "status", {"completed": ingest.completed, "failed": ingest.failed, "superseded": ingest.superseded})
        self._grown(self._chunks, "", {"": ingest.chunks})
        self._grown(self._seconds, "", {"": ingest.seconds})
        self._waiting.set(waiting)

    def _grown(self, metric: Any, key: str, counts: Mapping[str, float]) -> None:
        for value, count in counts.items():
            more = count - self._told.get((metric, value), 0)
            if more > 0:  # Ray refuses to add nothing
                metric.inc(more, tags={key: value} if key else {})
                self._told[metric, value] = count
