"""Plans for chats with documents: their order and their replica, from what replicas hold; and head starts while they are searched for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from cache.prefix.keys import BlockKeys, Tokens
from cache.prefix.router import Router
from deployments.head_start import HeadStart, call_of
from deployments.rendering import DocumentChat, Renderer
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.turns import Charged, Flow, Turnstile
from deployments.watchers import RoutingWatcher
from retrieval.eviction import hints
from retrieval.order import displacement
from retrieval.planner import Plan, Planner
from retrieval.speculation import Gate

_FROM_TEMPLATES = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/responses"})


class DocumentPlans:
    """One for each ingress, in its event loop."""

    def __init__(
        self,
        router: Router,
        renderer: Renderer,
        directory: ReplicaDirectory,
        client: ReplicaClient,
        turnstile: Turnstile,
        watcher: RoutingWatcher,
        name: str,
    ) -> None:
        """`name`: this ingress's."""
        self._router = router
        self._renderer = renderer
        self._directory = directory
        self._client = client
        self._turnstile = turnstile
        self._watcher = watcher
        self._name = name
        self._planner = Planner(router, router.clock)
        self.gate = Gate()

    async def plan(
        self, keys: BlockKeys, replicas: Sequence[Replica], salt: str, is_whole: bool, chat: DocumentChat, flow: Flow
    ) -> tuple[Plan, Call, Mapping[str, Replica], Charged | None] | None:
        """A plan, whose first replica is reserved, what is to be sent there, and replicas by id. None: it cannot be made."""
        pieces = await self._renderer.pieces(replicas, chat)
        if pieces is None:
            return None
        root = keys.root(salt)
        async with self._turnstile.turn(flow, len(pieces), lambda: self._planner.cached(keys, root, pieces, chat.ranks)) as charged:
            by_id = {replica.id: replica for replica in self._directory.replicas}  # rendering took a moment
            if not by_id:
                return None
            if chat.head_start:
                chat.head_start.leave()
            plan = self._planner.plan(keys, root, pieces, chat.ranks, list(by_id), is_whole)
        self._watcher.planned(displacement(plan.order))
        used, wasted = chat.head_start.spent(plan) if chat.head_start else (0, 0)
        self.gate.spent(used + wasted + len(pieces) - plan.routed.predicted, wasted)
        if chat.head_start:
            self._watcher.head_start(used, wasted)
        call = with_tokens(replicas[0], chat.ordered(plan.order), plan.tokens, self._hints(plan))
        return plan, call, by_id, charged

    async def head_start(self, keys: BlockKeys, replicas: Sequence[Replica], salt: str, chat: DocumentChat) -> HeadStart | None:
        """None: it would not pay, or cannot be made."""
        pieces = await self._renderer.pieces(replicas, chat) if self.gate.is_worth_planning else None
        by_id = {replica.id: replica for replica in self._directory.replicas}
        if pieces is None or not by_id:
            return None
        provisional = replace(pieces, tail=pieces.tail[:0])  # ranks and question are not shared
        plan = self._planner.plan(keys, keys.root(salt), provisional, chat.ranks, list(by_id), is_counted=False)
        if not self.gate.opens(plan.seconds, plan.backlog_s):
            plan.routed.end()
            return None
        start = HeadStart(plan, self._router.clock)
        start.begin(self._client, by_id[plan.routed.replicas[0]], self._name, call_of(plan.tokens, salt))
        return start

    def leave(self, start: HeadStart) -> None:
        """Its request has ended. What it has computed is counted, also where no prefill followed."""
        start.leave()
        _, wasted = start.spent(None)
        if wasted:
            self.gate.spent(wasted, wasted)
            self._watcher.head_start(0, wasted)

    def _hints(self, plan: Plan) -> dict[str, Any]:
        """For engines that keep KV in the host's memory: the question is not worth it, and what prefills cost."""
        if not plan.documents_end:
            return {}
        return {"max_offload_tokens": plan.documents_end, hints.FIELD: {"profile": self._router.profile.coefficients[:3]}}


def with_tokens(replica: Replica, call: Call, tokens: Tokens, parameters: Mapping[str, Any] | None = None) -> Call:
    """vLLM takes tokens that were rendered elsewhere, for all that goes through its chat templates, and does not render again. Clients may
    not set this field."""
    if replica.reuses_tokens and call.path in _FROM_TEMPLATES:
        parameters = {**(parameters or {}), "prompt_token_ids": tokens.tolist()}
    if not parameters:
        return call
    return replace(call, body=call.body[:-1] + b',"kv_transfer_params":' + msgspec.json.encode(parameters) + b"}")
