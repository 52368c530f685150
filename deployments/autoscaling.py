"""How many LLM replicas there should be, from what they report.

Requests reach replicas directly, so Ray's handles do not see them. Nor would their number say much: one prompt may take a thousand times
longer than another, and one whose prefix is cached takes next to nothing.
"""

from typing import Any

from ray.serve.config import AutoscalingContext

QUEUED = "queued_prefill_seconds"
"""Prefill that waits on a replica, as the ingresses predict it."""
BUSY = "prefill_share"
"""Of a replica's time: prefill admitted in a second."""
KV = "kv_usage"
"""Share of the KV cache that running requests hold."""


class QueueingPolicy:
    """Replicas so that none of three limits is passed on the average. Delays and bounds are Serve's own.

    More replicas would share the work, so each limit asks for the fleet's sum divided by it: `queue_s` seconds of prefill waiting, `busy`
    of the time spent on prefills (a queue grows without bound as that nears one), and `kv_usage` of the KV cache held by running requests
    (beyond it they preempt each other, and nothing stays cached).
    """

    def __init__(self, queue_s: float, busy: float, kv_usage: float) -> None:
        self._limits = {QUEUED: queue_s, BUSY: busy, KV: kv_usage}

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        metrics = ctx.aggregated_metrics or {}
        wanted = max(sum(metrics.get(name, {}).values()) / limit for name, limit in self._limits.items())
        # A replica that has not reported yet is neither idle nor busy: keep what there is until it speaks.
        if len(metrics.get(KV, {})) < ctx.current_num_replicas:
            return max(ctx.target_num_replicas, wanted), {}
        return wanted, {}
