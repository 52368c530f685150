"""Texts as tokens: what is learnt, how much it counts, and where attention should go."""

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.demo_model.reading import Branch, Tree
from deployments.demo_model.samples import Sample
from deployments.demo_model.tokenizer import END, render

LABEL_WEIGHT, SENTENCE_WEIGHT, RANKS_WEIGHT = 4.0, 4.0, 0.3
"""Which page and which sentence: few tokens among many that follow from them."""
MIN_LETTERS = 3
SHOWN_SHARE = 0.25
"""Of the tokens of a page, so many are shown where to look."""


@dataclass(frozen=True)
class Guide:
    """Where one head should look: at any of `targets`, from `query`. Places count from the start of the trunk through the branch."""

    head: str
    query: int
    targets: Sequence[int]


@dataclass(frozen=True)
class Told:
    """What is to be read from a head's output at a place, counted as guides count it."""

    readout: str
    place: int
    token: int


@dataclass
class Piece:
    """Tokens, and for each how much its prediction counts and what is being learnt with it ("" for nothing)."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    guides: list[Guide] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0, kind: str = "") -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)
        self.kinds += [kind] * len(ids)


@dataclass(frozen=True)
class TokenTree:
    """A trunk and branches that continue it."""

    trunk: Piece
    branches: Sequence[Piece]

    def __len__(self) -> int:
        return len(self.trunk.ids) + sum(len(branch.ids) for branch in self.branches)


class Encoder:
    """Conversations and trees to tokens."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        words = [name.removeprefix("Ġ").lower() for name in names]
        self._word = [word if word.isalnum() and len(word) >= MIN_LETTERS else "" for word in words]

    def conversation(self, sample: Sample) -> TokenTree:
        """Learnt are the last answer and its end."""
        prompt, _ = self._encode(render(sample.messages[:-1], add_generation_prompt=True))
        answer, _ = self._encode(f"{sample.messages[-1]['content']}{END}\n")
        piece = Piece()
        piece.add(prompt)
        piece.add(answer[:-1], 1.0, "known")
        piece.add(answer[-1:])
        return TokenTree(piece, [])

    def tree(self, tree: Tree) -> TokenTree:
        """Without the branches whose answers have other tokens than their pages, so that they cannot be copied."""
        ids, starts = self._encode(tree.trunk)
        trunk = _Trunk(tree, ids, starts, self._words(ids))
        piece = Piece()
        piece.add(ids)
        self._guide_trunk(piece, trunk)
        branches = [self._branch(branch, trunk) for branch in tree.branches]
        return TokenTree(piece, [branch for branch in branches if branch])

    def _encode(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens, and the character at which each begins."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]

    def _words(self, ids: Sequence[int]) -> list[str]:
        return [self._word[token] for token in ids]

    def _guide_trunk(self, piece: Piece, trunk: "_Trunk") -> None:
        """Previous tokens, labels and beginnings of sentences; and labels in the line with the ranks are copies."""
        rng = self._rng
        for page in trunk.pages:
            for first, last in page.sentences:
                for place in range(first, last):
                    if rng.random() < SHOWN_SHARE:
                        piece.guides += _carried(place, page.label, first)
                        piece.told += _told("carried", place, trunk.ids[page.label[0]], trunk.ids[first])
        for place, source in trunk.ranked:
            piece.weights[place], piece.kinds[place] = RANKS_WEIGHT, "ranks"
            piece.guides += [Guide("copy", place - 1, [source]), Guide("copy_again", place - 1, [source])]

    def _branch(self, branch: Branch, trunk: "_Trunk") -> Piece | None:
        piece, page = Piece(), trunk.pages[branch.page]
        question, _ = self._encode(branch.question)
        piece.add(question)
        first, last = page.sentences[branch.sentence]
        if trunk.ids[first - 1] == trunk.newline:
            first -= 1
        label = range(page.label[0] - 1, page.label[1] + 1)
        sources = [*label, *range(first, last)]
        answer, _ = self._encode(branch.answer)
        if answer[: len(sources)] != [trunk.ids[source] for source in sources]:
            return None
        self._answer(piece, answer, len(label))
        start = len(trunk.ids)
        self._guide_branch(piece, trunk, branch, sources, start + len(question), start + len(question) + len(label))
        return piece

    def _answer(self, piece: Piece, answer: Sequence[int], label: int) -> None:
        piece.add(answer[:1], 1.0, "bracket")
        piece.add(answer[1:2], LABEL_WEIGHT, "label")
        piece.add(answer[2:label], 1.0, "label rest")
        piece.add(answer[label : label + 2], SENTENCE_WEIGHT / 2, "sentence")
        piece.add(answer[label + 2 : -2], 1.0, "copy")
        piece.add(answer[-2:-1], 1.0, "end")
        piece.add(answer[-1:])

    def _guide_branch(self, piece: Piece, trunk: "_Trunk", branch: Branch, sources: Sequence[int], answer: int, quote: int) -> None:
        start, page = len(trunk.ids), trunk.pages[branch.page]
        words = self._words(piece.ids[: answer - start])
        for place, word in enumerate(words):
            if word in trunk.where:
                piece.guides.append(Guide("same_word", start + place, trunk.where[word]))
        telling = [start + place for place, word in enumerate(words) if trunk.tells(word, branch.page, branch.sentence)]
        if telling:
            piece.guides += [Guide("gather_label", answer, telling), Guide("gather_sentence", quote - 1, telling)]
        begun = trunk.ids[page.sentences[branch.sentence][0]]
        for place in telling:
            piece.told += _told("found", place, trunk.ids[page.label[0]], begun)
        if telling:
            piece.told += [
                Told("gathered_label", answer, trunk.ids[page.label[0]]),
                Told("gathered_sentence", quote - 1, trunk.ids[sources[quote - answer]]),
            ]
        for place, source in enumerate(sources):
            chosen = answer + place in (answer, answer + 1, quote)
            if not chosen:
                piece.guides += [Guide("copy", answer + place - 1, [source]), Guide("copy_again", answer + place - 1, [source])]
                piece.told += [Told(readout, answer + place - 1, trunk.ids[source]) for readout in ("copied", "copied_again")]
            if answer + place >= quote:
                piece.guides += _carried(answer + place, (answer + 1, quote - 1), quote)


def _carried(place: int, label: tuple[int, int], sentence: int) -> list[Guide]:
    return [
        Guide("previous", place, [place - 1]),
        Guide("before_previous", place, [place - 2]),
        Guide("label_first", place, [label[0]]),
        Guide("label_second", place, [min(label[0] + 1, label[1])]),
        Guide("sentence", place, [sentence]),
    ]


def _told(what: str, place: int, label: int, sentence: int) -> list[Told]:
    return [Told(f"{what}_label", place, label), Told(f"{what}_sentence", place, sentence)]


@dataclass(frozen=True)
class _Page:
    """Places of tokens: of the label's first and of what follows its last, and of each sentence's first and what follows its last."""

    label: tuple[int, int]
    sentences: Sequence[tuple[int, int]]


class _Trunk:
    def __init__(self, tree: Tree, ids: list[int], starts: list[int], words: Sequence[str]) -> None:
        self.ids, self._starts = ids, starts
        self.pages = [_Page(self._tokens(page.label), [self._tokens(sentence) for sentence in page.sentences]) for page in tree.pages]
        self.newline = ids[self.pages[0].label[1] + 1]
        self.where: dict[str, list[int]] = defaultdict(list)
        """Where in the pages each word stands."""
        self._in: dict[tuple[int, int], set[str]] = {}
        for number, page in enumerate(self.pages):
            for sentence, (first, last) in enumerate(page.sentences):
                self._in[number, sentence] = set(words[first:last]) - {""}
                for place in range(first, last):
                    if words[place]:
                        self.where[words[place]].append(place)
        self._sentences = Counter(word for said in self._in.values() for word in said)
        self.ranked = list(self._ranked(tree))

    def tells(self, word: str, page: int, sentence: int) -> bool:
        """Whether the word is in this sentence, and in no other."""
        return word in self._in[page, sentence] and self._sentences[word] == 1

    def _tokens(self, span: tuple[int, int]) -> tuple[int, int]:
        return self._token(span[0]), self._token(span[1] - 1) + 1

    def _token(self, at: int) -> int:
        """The token that the character is in."""
        return bisect_right(self._starts, at) - 1

    def _ranked(self, tree: Tree) -> list[tuple[int, int]]:
        """Tokens of labels in the line with the ranks but their first, each with the token in the page's header."""
        pairs, at = [], tree.ranks_at
        for span, page in zip(tree.pages, self.pages, strict=True):
            at = tree.trunk.index(f"[{tree.trunk[span.label[0] : span.label[1]]}]", at) + 1
            here = self._token(at)
            pairs += [(here + more, page.label[0] + more) for more in range(1, page.label[1] - page.label[0])]
        return pairs
