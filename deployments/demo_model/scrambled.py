"""Sentences of random words, and questions that name some of them: matching and copying are all that helps to answer."""

import random
from collections.abc import Sequence
from typing import Any

from deployments.demo_model.data import nonsense
from deployments.demo_model.reading import Ask, Page, Reading

SMALL = ("the", "a", "of", "in", "is", "and", "to", "for", "with", "are", "by", "on", "at", "from")
JOINTS = ("", "", "", "_", "-", ".")
OPENERS = ("What", "Which", "When", "How", "Where", "Who", "Why", "What is the", "How does", "What does", "Which", "Tell me", "")


class Scrambled:
    """Draws readings from `words`, a list of any words."""

    def __init__(self, words: Sequence[str], rng: random.Random) -> None:
        self._words, self._rng = words, rng

    def reading(self, pages: int, sentences: int, asks: int, *, longest: int = 9) -> Reading:
        """Pages of 1 to `sentences` sentences of 3 to `longest` words, and questions for sentences anywhere in them."""
        rng = self._rng
        pool = [self.word() for _ in range(pages * sentences * longest // 2 + 4)]
        texts = [[self.sentence(pool, longest) for _ in range(rng.randint(1, sentences))] for _ in range(pages)]
        made = [ask for _ in range(asks) if (ask := self._ask(texts))]
        return Reading([Page.of(text, [" "] * (len(text) - 1)) for text in texts], made)

    def word(self) -> str:
        rng = self._rng
        word = rng.choice(self._words) if rng.random() < 0.75 else nonsense(rng).split()[0]
        return word.capitalize() if rng.random() < 0.15 else word

    def sentence(self, pool: Sequence[str], longest: int) -> str:
        """Its words come from a pool of a few dozen, so that neighbours share some."""
        rng = self._rng
        words = [rng.choice(SMALL) if rng.random() < 0.3 else rng.choice(pool) for _ in range(rng.randint(3, longest))]
        if rng.random() < 0.4:
            words.insert(0, "the")
        words[0] = words[0][:1].upper() + words[0][1:]
        return " ".join(words) + "."

    def _ask(self, texts: Sequence[Sequence[str]]) -> Ask | None:
        """None for a sentence that has no word of its own."""
        rng = self._rng
        page = rng.randrange(len(texts))
        place = rng.randrange(len(texts[page]))
        sentence = texts[page][place]
        others = {word for text in texts for each in text for word in content(each) if each != sentence}
        mine = content(sentence)
        telling = [word for word in mine if word not in others]
        if not telling:
            return None
        chosen = {rng.choice(telling), *rng.sample(mine, min(len(mine), rng.randint(1, 4)))}
        return Ask(self.question([word for word in mine if word in chosen]), page, place)

    def question(self, words: Sequence[str]) -> str:
        rng = self._rng
        asked = list(words)
        if rng.random() < 0.4:
            rng.shuffle(asked)
        asked = [part for word in asked for part in ([rng.choice(SMALL), word] if rng.random() < 0.25 else [word])]
        opener = rng.choice(OPENERS)
        return f"{opener} {' '.join(asked)}".strip() + ("?" if opener or rng.random() < 0.5 else "")


def words(tokenizer: Any) -> list[str]:
    """Words of four letters and more that are one token behind a space, in the order of the alphabet."""
    found = (token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ"))
    return sorted({word for word in found if word.isalpha() and len(word) > 3})


def made_words(tokenizer: Any, count: int, rng: random.Random) -> list[str]:
    """Of any tokens of letters, joined: so that each token is now and then one to be copied."""
    parts = sorted({part for token in tokenizer.get_vocab() if (part := token.removeprefix("Ġ")).isascii() and part.isalpha()})
    return [rng.choice(JOINTS).join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(count)]


def content(sentence: str) -> list[str]:
    """Its words without the small ones, in order."""
    return [word for word in sentence.rstrip(".").split() if word.lower() not in SMALL]
