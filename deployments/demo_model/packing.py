"""Packs token trees into rows of one length, so that what several texts begin with is computed once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from deployments.demo_model.lessons import Guide, Piece, TokenTree

TRUNK = 0


@dataclass
class Row(Piece):
    """Tokens of several trees, with guides and readouts in places of the row.

    `tree` and `branch` say what a token may see: its own tree's trunk and its own branch, up to itself.
    """

    positions: list[int] = field(default_factory=list)
    tree: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)

    def put(self, tree: TokenTree, number: int) -> None:
        trunk = len(self.ids)
        self._put(tree.trunk, 0, number, TRUNK)
        self.guides += [_moved(guide, len(tree.trunk.ids), trunk, 0) for guide in tree.trunk.guides]
        self.told += [replace(told, place=told.place + trunk) for told in tree.trunk.told]
        for branch, piece in enumerate(tree.branches, 1):
            shift = len(self.ids) - len(tree.trunk.ids)
            self._put(piece, len(tree.trunk.ids), number, branch)
            self.guides += [_moved(guide, len(tree.trunk.ids), trunk, shift) for guide in piece.guides]
            self.told += [replace(told, place=told.place + shift) for told in piece.told]

    def _put(self, piece: Piece, first: int, number: int, branch: int) -> None:
        self.ids += piece.ids
        self.positions += range(first, first + len(piece.ids))
        self.tree += [number] * len(piece.ids)
        self.branch += [branch] * len(piece.ids)
        self.weights += piece.weights
        self.kinds += piece.kinds


def _moved(guide: Guide, trunk: int, trunk_shift: int, branch_shift: int) -> Guide:
    """From places in a trunk and one of its branches to places in a row."""
    moved = [place + (trunk_shift if place < trunk else branch_shift) for place in (guide.query, *guide.targets)]
    return Guide(guide.head, moved[0], moved[1:])


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
        row.put(each, number)
    if row.ids:
        yield row


@dataclass(frozen=True)
class Batch:
    """Each of shape (rows, length); `mask` (rows, 1, length, length), true where the query of the second last dimension sees the key."""

    ids: Any
    positions: Any
    mask: Any
    targets: Any
    """For each token but the last the one to predict after it, in its own branch."""
    weights: Any
    kinds: Sequence[str]
    """Of the targets with a weight, row by row."""
    guides: dict[str, list[list[Guide]]]
    """For each head, those of each row."""
    told: dict[str, Any]
    """For each readout, rows, places and tokens: (3, n)."""


def batch(packed: Sequence[Row]) -> Batch:
    length = max(len(row.ids) for row in packed)

    def padded(values: Sequence[list[Any]], fill: float) -> Any:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    trees, branches = padded([row.tree for row in packed], 0), padded([row.branch for row in packed], TRUNK)
    same_tree = trees[:, :, None] == trees[:, None, :]
    seen = (branches[:, None, :] == TRUNK) | (branches[:, :, None] == branches[:, None, :])
    mask = (same_tree & seen).tril()[:, None]
    ids = padded([row.ids for row in packed], 0)
    follows = (trees[:, 1:] == trees[:, :-1]) & (branches[:, 1:] == branches[:, :-1])
    weights = padded([row.weights for row in packed], 0.0)[:, 1:] * follows
    kinds = [row.kinds[place + 1] for number, row in enumerate(packed) for place in range(len(row.ids) - 1) if weights[number, place] > 0]
    heads = {guide.head for row in packed for guide in row.guides}
    guides = {head: [[guide for guide in row.guides if guide.head == head] for row in packed] for head in heads}
    return Batch(ids, padded([row.positions for row in packed], 0), mask, ids[:, 1:], weights, kinds, guides, _told(packed))


def _told(packed: Sequence[Row]) -> dict[str, Any]:
    found = defaultdict[str, list[tuple[int, int, int]]](list)
    for number, row in enumerate(packed):
        for told in row.told:
            found[told.readout].append((number, told.place, told.token))
    return {readout: torch.tensor(all_of_it).T for readout, all_of_it in found.items()}
