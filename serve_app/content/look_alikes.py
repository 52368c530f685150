"""Letters of other scripts that look like Latin ones: with them a word reads the same, to people and to models, and is another one to
rules.

Each folded character has a look: the one of a to z that it cannot be told from by Unicode's table of confusables, or itself. I and l have
the same one. Words of rules and texts are compared by their looks, so it does not matter which of the two is in which script.

The look alone proves nothing: the Russian word for mouth looks like `pot`. So a text that differs from the rule's word and only looks like
it counts if nobody writes so honestly: it mixes scripts, or has letters that no language is written with (small capitals, phonetic signs,
letters in dark circles). What is wholly of one other script passes, unless the rule's `look_alikes` is `all`.

ASCII looks like itself: digits for letters (`s3cret`) are other words. What NFKC makes the same (full width, mathematical letters) is
folded before, and is never in doubt.
"""

import unicodedata
from functools import lru_cache
from pathlib import Path

from serve_app.content.folding import MAX_REMEMBERED, fold

_PHONETIC = (range(0x250, 0x2B0), range(0x1D00, 0x1DC0))
"""Those that have capitals are letters of African languages, too."""
_IN_ANOTHER_FONT = "\u0251\u0261"
"""Phonetic a and g, which have capitals by now."""
_NOBODYS = "ornament"


def _read() -> dict[str, str]:
    lines = Path(__file__).with_name("look_alikes.txt").read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {chr(int(code, 16)): letter for letter, *codes in rows for code in codes}


_LETTERS = _read()
_SMALL = str.maketrans({char: letter.replace("i", "l") for char, letter in _LETTERS.items()} | {"i": "l"})


class _Looks(dict[int, str]):
    """For `str.translate`: a character's look, found out once."""

    def __missing__(self, code: int) -> str:
        look = _look(chr(code))
        if len(self) < MAX_REMEMBERED:
            self[code] = look
        return look


def _look(char: str) -> str:
    """As many characters as it has folded. By itself first: a capital and its small letter may look like two letters (Greek eta)."""
    folded = fold(char)
    written = unicodedata.normalize("NFKD", char)
    if len(written) != len(folded):
        written = folded
    looks = (_LETTERS.get(each) or _LETTERS.get(small, small) for each, small in zip(written, folded, strict=True))
    return "".join(looks).replace("i", "l")


_looks = _Looks()


def looks(text: str) -> str:
    """What the folded text looks like, character by character of it, with its capitals."""
    return text.translate(_looks)


def looks_small(folded: str) -> str:
    """The same without capitals, whose looks are others in some scripts."""
    return folded.translate(_SMALL)


def looks_of_word(word: str) -> set[str]:
    """In small letters, capitals, and both."""
    return {looks_small(fold(word)), *map(looks, (word, word.lower(), word.upper(), word.title()))}


def differs_in_script(folded: str, word: str) -> bool:
    """Whether it is another one than the folded word that it looks like, by more than an l for an i: all that differ within ASCII."""
    return any(char != own and not (char.isascii() and own.isascii()) for char, own in zip(folded, word, strict=False))


def is_disguise(folded: str) -> bool:
    """Whether nobody writes so but to look like something else."""
    scripts = {_script(char) for char in folded} - {""}
    return len(scripts) > 1 or _NOBODYS in scripts


@lru_cache(MAX_REMEMBERED)
def _script(char: str) -> str:
    """Empty for what is of none, or of all: digits, signs, accents."""
    name = unicodedata.name(char, "")
    is_phonetic = any(ord(char) in each for each in _PHONETIC) and (char.upper() == char or char in _IN_ANOTHER_FONT)
    if is_phonetic or "SMALL CAPITAL" in name or name.startswith("NEGATIVE "):
        return _NOBODYS
    return name.partition(" ")[0] if unicodedata.category(char)[0] == "L" else ""
