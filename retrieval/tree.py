"""The knowledge tree: which documents, in which order, are cached behind a prompt's head, on which replica.

RAGCache (Jin et al., arXiv 2404.12457) keeps a tree of documents beside the KV cache. Here it is the prefix index, seen by documents: a
node is a list of documents behind a head, and is cached where all its blocks are. So nothing can diverge from what engines hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cache.prefix.index import PrefixIndex
from cache.prefix.keys import BlockKeys, Tokens
from retrieval.order import Order, Ranks

MAX_STEPS = 256
"""Documents that are tried behind a node, in one walk: those of five hits in every order are fewer than so many."""


@dataclass(frozen=True, slots=True)
class CachedPath:
    """The most that a replica holds of a head and documents behind it."""

    order: Order = ()
    """The documents of which something is cached."""
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class _Node:
    """What all replicas of a mask hold: a head and the documents of `order`.

    `rest`: the tokens behind the last full block, whose key is `key`.
    """

    order: Order
    blocks: int
    key: int
    rest: Tokens
    mask: int


@dataclass(slots=True)
class Walk:
    """One walk through the tree, for all replicas at once: a branch is followed as far as any of them holds it.

    So it finds the best order of each replica, where a greedy walk could take a wrong turn.
    """

    index: PrefixIndex
    pending: dict[int, int]
    """See `PrefixIndex.match`."""
    keys: BlockKeys
    documents: Sequence[Tokens]
    """Best first."""
    ranks: Ranks
    _steps: int = 0
    _best: dict[int, CachedPath] = field(default_factory=dict)

    def paths(self, root: int, head: Tokens) -> dict[str, CachedPath]:
        """By replica; those that hold nothing are left out. `root`: of the prompt's keys; `head`: what comes before the documents."""
        known = self.keys.chain(root, head)
        rest = head[len(known) * self.keys.block_size :]
        everywhere = self.index.all_replicas
        mask = self._follow(known, everywhere, (), 0)
        nodes = [_Node((), len(known), known[-1] if known else root, rest, mask)] if mask else []
        while nodes and self._steps < MAX_STEPS:
            nodes += self._children(nodes.pop())
        return {name: path for mask, path in self._best.items() for name in self.index.names(mask)}

    def _children(self, node: _Node) -> list[_Node]:
        children = [
            self._child(node, hit) for hit in range(len(self.documents)) if hit not in node.order and self.ranks.allows(node.order, hit)
        ]
        return [child for child in reversed(children) if child]  # the most relevant is visited first

    def _child(self, node: _Node, hit: int) -> _Node | None:
        self._steps += 1
        size = self.keys.block_size
        document = self.documents[hit]
        first = self.keys.chain(node.key, node.rest.tolist() + document[: size - len(node.rest)].tolist())
        mask = node.mask & self.index.holders(first[0], self.pending) if first else 0
        if not mask:
            return None
        tokens = np.concatenate((node.rest, document))
        known = first + self.keys.chain(first[0], tokens[size:])
        order = (*node.order, hit)
        mask = self._follow(known, mask, order, node.blocks)
        return _Node(order, node.blocks + len(known), known[-1], tokens[len(known) * size :], mask) if mask else None

    def _follow(self, known: list[int], mask: int, order: Order, before: int) -> int:
        """The replicas that hold all of these blocks. How far the others do is noted."""
        holders, pending = self.index.holders, self.pending
        for blocks, key in enumerate(known, before):
            left = mask & holders(key, pending)
            if left != mask:
                self._note(mask & ~left, CachedPath(order, blocks))
                mask = left
                if not mask:
                    return 0
        self._note(mask, CachedPath(order, before + len(known)))
        return mask

    def _note(self, mask: int, path: CachedPath) -> None:
        while path.blocks and mask:
            bit = mask & -mask
            mask ^= bit
            if bit not in self._best or path.blocks > self._best[bit].blocks:
                self._best[bit] = path
