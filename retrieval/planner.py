"""Chooses the order of documents and the replica together.

Routers take the order of documents as given, and what reorders documents does so for one engine. But which order is good depends on the
replica, and which replica on the order. So every replica is given the order that it holds most of, within the bounds on ranks, and the
router takes the one whose prefill is done first. What no replica holds is put in order of how often it was asked for lately: what comes
first has the best chance to be shared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.prefix.heat import Heat
from cache.prefix.keys import BlockKeys, Tokens
from cache.prefix.router import Prompt, Routed, Router
from retrieval.order import Order, Ranks
from retrieval.tree import CachedPath, Walk

HALF_LIFE_S = 300.0
"""Of the counts by which documents that nobody holds are put in order."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A prompt's tokens: documents, best first, between what comes before and behind them. Joined in any order they are the prompt."""

    head: Tokens
    documents: Sequence[Tokens]
    tail: Tokens
    names: Sequence[str]
    """What tells one document from another, under the same salt."""

    def __len__(self) -> int:
        """Tokens of the prompt."""
        return len(self.head) + sum(map(len, self.documents)) + len(self.tail)

    def joined(self, order: Order) -> Tokens:
        return np.concatenate([self.head, *(self.documents[hit] for hit in order), self.tail])


@dataclass(frozen=True, slots=True)
class Plan:
    order: Order
    tokens: Tokens
    """The prompt, in that order."""
    documents_end: int
    """Its tokens up to there; 0: it has none."""
    routed: Routed
    backlog_s: float
    """Of other work, before it, on the first replica."""

    @property
    def seconds(self) -> float:
        """Predicted time of its prefill."""
        return self.routed.work.seconds if self.routed.work else 0.0


class Planner:
    """Of one model, in one process: beside its router."""

    def __init__(self, router: Router, clock: Callable[[], float]) -> None:
        self._router = router
        self._heat = Heat(clock, HALF_LIFE_S)

    def plan(
        self,
        keys: BlockKeys,
        root: int,
        pieces: Pieces,
        ranks: Ranks,
        replicas: Sequence[str],
        is_whole: bool = False,
        *,
        is_counted: bool = True,
    ) -> Plan:
        """Also reserves the first replica's place. `root`: of the prompt's keys, see `BlockKeys.root`; `replicas` must not be empty;
        `is_counted`: its documents are asked for, once more than before."""
        names = [keys.digest((root, name)) for name in pieces.names]
        heats = self._heat.touch_all(names) if is_counted else [self._heat.of(name) for name in names]
        router, tokens = self._router, len(pieces)
        paths = self._paths(keys, root, pieces, ranks)
        cached = [paths[replica].blocks * keys.block_size if replica in paths else 0 for replica in replicas]
        ranked = [replicas[place] for place in router.order(replicas, cached, tokens, heat=0.0)]
        order = ranks.completed(paths.get(ranked[0], CachedPath()).order, heats)
        joined = pieces.joined(order)
        prompt = Prompt(keys.chain(root, joined), tokens, is_whole)
        backlog_s = router.ledger(ranked[0]).backlog_s(router.clock())
        documents_end = tokens - len(pieces.tail) if order else 0
        held = router.cached(prompt, ranked)
        routed = router.take(prompt, ranked, held, router.heat(prompt, held) if is_counted else 0.0)
        return Plan(order, joined, documents_end, routed, backlog_s)

    def cached(self, keys: BlockKeys, root: int, pieces: Pieces, ranks: Ranks) -> int:
        """Tokens that the replica which holds most of them holds, in its best order."""
        return keys.block_size * max((path.blocks for path in self._paths(keys, root, pieces, ranks).values()), default=0)

    def _paths(self, keys: BlockKeys, root: int, pieces: Pieces, ranks: Ranks) -> dict[str, CachedPath]:
        self._router.pending.expire()
        return Walk(self._router.index, self._router.pending.masks, keys, pieces.documents, ranks).paths(root, pieces.head)
