"""How many LLM replicas there should be, from the load that they report.

Requests reach replicas directly, so Ray's handles do not see them and Ray's own count of ongoing requests is near zero.
"""

from typing import Any

from ray.serve.config import AutoscalingContext

ONGOING = "ongoing_requests"


class OngoingRequestsPolicy:
    """Replicas so that each has about `target` running and waiting requests. Delays and bounds are Serve's own."""

    def __init__(self, target: float) -> None:
        self._target = target

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        reported = (ctx.aggregated_metrics or {}).get(ONGOING, {})
        # A replica that has not reported yet is neither idle nor busy: keep what there is until it speaks.
        if len(reported) < ctx.current_num_replicas:
            return max(ctx.target_num_replicas, sum(reported.values()) / self._target), {}
        return sum(reported.values()) / self._target, {}
