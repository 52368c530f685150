"""Packs token trees into rows of one length, so that what several texts begin with is computed once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

TRUNK = 0


@dataclass
class Row:
    """Tokens of several trees. `tree` and `branch` say what a token may see: its own tree's trunk and its own branch, up to itself."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    tree: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    """How much the prediction of this token counts."""

    def add(self, ids: list[int], first: int, tree: int, branch: int, weights: list[float]) -> None:
        self.ids += ids
        self.positions += range(first, first + len(ids))
        self.tree += [tree] * len(ids)
        self.branch += [branch] * len(ids)
        self.weights += weights


@dataclass(frozen=True)
class TokenTree:
    """A trunk and its branches as tokens, each with the weights of its tokens' predictions. `gap` moves the branches' positions."""

    trunk: tuple[list[int], list[float]]
    branches: list[tuple[list[int], list[float]]]
    gap: int = 0

    def __len__(self) -> int:
        return len(self.trunk[0]) + sum(len(ids) for ids, _ in self.branches)


def rows(trees: Iterable[TokenTree], length: int) -> Iterator[Row]:
    """Rows of at most `length` tokens; what does not fit into one is left out."""
    row, number = Row(), 0
    for each in trees:
        if len(each) > length:
            continue
        if len(row.ids) + len(each) > length:
            yield row
            row, number = Row(), 0
        number += 1
        put(row, each, number)
    if row.ids:
        yield row


def put(row: Row, tree: TokenTree, number: int) -> None:
    ids, weights = tree.trunk
    row.add(ids, 0, number, TRUNK, weights)
    for branch, (more, their_weights) in enumerate(tree.branches, 1):
        row.add(more, len(ids) + tree.gap, number, branch, their_weights)


@dataclass(frozen=True)
class Batch:
    """Each of shape (rows, length); `mask` (rows, 1, length, length), true where the query of the second last dimension sees the key."""

    ids: Any
    positions: Any
    mask: Any
    targets: Any
    """For each token the one to predict after it, in its own branch."""
    weights: Any


def batch(packed: list[Row], length: int) -> Batch:
    def padded(values: list[list[Any]], fill: float) -> Any:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    trees, branches = padded([row.tree for row in packed], 0), padded([row.branch for row in packed], TRUNK)
    same_tree = trees[:, :, None] == trees[:, None, :]
    seen = (branches[:, None, :] == TRUNK) | (branches[:, :, None] == branches[:, None, :])
    mask = (same_tree & seen).tril()[:, None]
    ids = padded([row.ids for row in packed], 0)
    follows = (trees[:, 1:] == trees[:, :-1]) & (branches[:, 1:] == branches[:, :-1])
    weights = padded([row.weights for row in packed], 0.0)[:, 1:] * follows
    return Batch(ids, padded([row.positions for row in packed], 0), mask, ids[:, 1:], weights)
