"""Computes hot prefixes where they will be needed: on a replica that is new, and elsewhere than on one that leaves.

An ingress remembers the tokens of the prefixes that are asked for again and again, under the tenants' salts, and asks a replica to
generate one token behind them.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cache.prefix.keys import Tokens
from cache.prefix.router import Router
from deployments.errors import DeploymentError
from deployments.head_start import call_of
from deployments.replica_client import ReplicaClient
from deployments.replicas import Replica

log = logging.getLogger("ray.serve")

MAX_REMEMBERED = 64
MAX_TOKENS = 100_000
"""Computed for one replica; at most so many are remembered for one prefix."""
LIMIT_S = 10.0
"""After that a new replica takes requests, warm or not."""
HALF_LIFE_S = 600.0
"""Of the heat of a prefix that nobody asks for any more."""
COLD = 1.0
"""Heat below which a prefix is not worth it."""


@dataclass(frozen=True, slots=True)
class HotPrefix:
    """Tokens of full blocks, and how often they were asked for lately."""

    keys: Sequence[int]
    tokens: Tokens
    salt: str
    heat: float
    """At `since`, in seconds of the router's clock."""
    since: float

    def heat_at(self, now: float) -> float:
        return self.heat * math.exp2((self.since - now) / HALF_LIFE_S)


class Warmer:
    """One for each ingress."""

    def __init__(self, client: ReplicaClient, router: Router) -> None:
        self._client = client
        self._router = router
        self._hot: dict[int, HotPrefix] = {}

    def __bool__(self) -> bool:
        """There is something to warm."""
        return bool(self._hot)

    def remember(self, prefix: HotPrefix) -> None:
        """The newest count of a prefix takes the place of the last; of too many, the coldest goes."""
        if len(prefix.tokens) > MAX_TOKENS:
            return
        self._hot[prefix.keys[-1]] = prefix
        if len(self._hot) > MAX_REMEMBERED:
            now = self._router.clock()
            del self._hot[min(self._hot, key=lambda key: self._hot[key].heat_at(now))]

    async def warm(self, replica: Replica) -> None:
        """Has a new replica compute the hottest prefixes, one after the other. Returns after `LIMIT_S` at the latest."""
        prefixes = self._hottest()
        try:
            async with asyncio.timeout(LIMIT_S):
                for prefix in prefixes:
                    await self._compute(prefix, replica)
        except (DeploymentError, TimeoutError) as error:
            log.warning("a replica was not warmed", extra={"replica": replica.id, "error": type(error).__name__})
        else:
            log.info("a replica is warm", extra={"replica": replica.id, "prefixes": len(prefixes)})

    async def rebuild(self, leaving: Replica, others: Sequence[Replica]) -> None:
        """Has the others compute what only the one that leaves holds, each prefix on the one that has least to do."""
        names = {replica.id: replica for replica in others if replica.id != leaving.id}
        for prefix in self._hottest():
            held = self._router.index.match(prefix.keys).any_tier
            if not names or held.get(leaving.id, 0) < len(prefix.keys) or any(held.get(name, 0) == len(prefix.keys) for name in names):
                continue
            now = self._router.clock()
            idlest = min(names, key=lambda name: self._router.ledger(name).backlog_s(now))
            try:
                await self._compute(prefix, names[idlest])
            except DeploymentError as error:
                log.warning("a prefix was not rebuilt", extra={"replica": idlest, "error": type(error).__name__})

    def _hottest(self) -> list[HotPrefix]:
        """Hottest first, as far as `MAX_TOKENS` go."""
        chosen, room, now = [], MAX_TOKENS, self._router.clock()
        self._hot = {key: prefix for key, prefix in self._hot.items() if prefix.heat_at(now) >= COLD}
        for prefix in sorted(self._hot.values(), key=lambda prefix: -prefix.heat_at(now)):
            if len(prefix.tokens) <= room:
                chosen.append(prefix)
                room -= len(prefix.tokens)
        return chosen

    async def _compute(self, prefix: HotPrefix, replica: Replica) -> None:
        """Behind clients' requests. Raises `DeploymentError`; what an engine refuses is passed over."""
        answer = await self._client.probe(call_of(prefix.tokens, prefix.salt), replica)
        if answer.status >= 400:
            log.warning("an engine computes no prefix beforehand", extra={"replica": replica.id, "status": answer.status})
        try:
            async for _ in answer.chunks():
                pass
        finally:
            await answer.close()
