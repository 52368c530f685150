"""A prefill that begins while the search for its documents still goes on: one token behind the provisional documents, at lowest priority.

When the search has ended, it is given up in any case: an engine keeps what it has computed by then, and the request computes the rest.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from cache.prefix.keys import Tokens, common
from deployments.accounts import write_work
from deployments.errors import DeploymentError
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica
from deployments.reports import INGRESS_HEADER, WORK_HEADER
from retrieval.planner import Plan

log = logging.getLogger("ray.serve")

LOWEST_PRIORITY = 1_000_000
"""As vLLM counts: lower numbers come first, and clients' requests have 0."""


def call_of(tokens: Tokens, salt: str) -> Call:
    body = {"prompt": tokens.tolist(), "max_tokens": 1, "temperature": 0, "cache_salt": salt, "priority": LOWEST_PRIORITY}
    return Call("POST", "/v1/completions", {"content-type": "application/json"}, msgspec.json.encode(body))


@dataclass(slots=True)
class HeadStart:
    """One, under way. To be left in every case."""

    plan: Plan
    clock: Callable[[], float]
    _began: float = field(init=False)
    _task: "asyncio.Task[None] | None" = field(init=False, default=None)
    _share: float | None = field(init=False, default=None)
    _is_counted: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def begin(self, client: ReplicaClient, replica: Replica, ingress: str, call: Call) -> None:
        work = self.plan.routed.work
        headers = {**call.headers, **({INGRESS_HEADER: ingress, WORK_HEADER: write_work(work)} if work else {})}
        self._task = asyncio.ensure_future(self._compute(client, replica, replace(call, headers=headers)))

    async def _compute(self, client: ReplicaClient, replica: Replica, call: Call) -> None:
        is_taken = False
        try:
            answer = await client.probe(call, replica)
            is_taken = answer.status < 400
            try:
                async for _ in answer.chunks():
                    if is_taken:  # a refusal comes fast, and teaches nothing of prefills
                        self.plan.routed.prefilled()
            finally:
                await answer.close()
        except DeploymentError as error:
            log.info("a head start was refused", extra={"replica": replica.id, "error": type(error).__name__})
            is_taken = False
        if not is_taken:
            self._share = 0.0
        self.plan.routed.end()

    def leave(self) -> None:
        """The search has ended, or the request has. Calling it twice is harmless."""
        if self._share is not None:
            return
        work = self.plan.routed.work
        runs = work is not None and not work.is_over and work.seconds > 0
        self._share = min((self.clock() - self._began) / work.seconds, 1.0) if work and runs else 1.0
        if self._task:
            self._task.cancel()
        self.plan.routed.leave(self._share)

    def spent(self, final: Plan | None) -> tuple[int, int]:
        """Tokens that it has computed for the final plan's prompt, and those for nothing; 0 when asked again.

        To be asked when it has been left. `final`: None where no prefill came, as for a kept answer.
        """
        if self._is_counted:
            return 0, 0
        self._is_counted = True
        routed = self.plan.routed
        begun = int((self._share or 0.0) * (len(self.plan.tokens) - routed.predicted))
        shared = common(self.plan.tokens, final.tokens) if final and routed.asked == final.routed.asked else 0
        used = min(begun, max(shared - routed.predicted, 0))
        return used, begun - used
