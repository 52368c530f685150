"""How words are compared: without case, width and kind of space, and with letters and their accents as one writes them or the other."""

import unicodedata
from functools import lru_cache

MAX_REMEMBERED = 65_536
_HANGUL = range(0xAC00, 0xD7A4)
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts without spaces between words, or with what other languages have for words of their own attached (Hangul)."""


class _Folds(dict[int, str]):
    """For `str.translate`: a character's folded form, found out once."""

    def __missing__(self, code: int) -> str:
        folded = _fold(chr(code))
        if len(self) < MAX_REMEMBERED:
            self[code] = folded
        return folded


def _fold(char: str) -> str:
    """At least one character. By NFKC and case folding, then decomposed: a text's accents may come in the next piece of it."""
    if char.isspace():
        return " "
    folded = unicodedata.normalize("NFKC", char).casefold() or char
    # A decomposed syllable of Hangul would begin with other syllables.
    return "".join(each if ord(each) in _HANGUL else unicodedata.normalize("NFKD", each) for each in folded)


_folds = _Folds()


def fold(text: str) -> str:
    """Each character for itself, so that the pieces of a text may be folded one after the other."""
    return text.translate(_folds)


def origins(text: str, folded: str) -> list[int] | None:
    """For each character of `folded`, which one of `text` it is from. None: each from the one at its own place."""
    if len(folded) == len(text):  # none becomes less than one
        return None
    return [place for place, char in enumerate(text) for _ in range(len(_folds[ord(char)]))]


@lru_cache(MAX_REMEMBERED)
def is_of_word(char: str) -> bool:
    """Whether a folded character continues a word of a script that has spaces between words."""
    if unicodedata.category(char)[0] not in "LNM" and char != "_":
        return False
    return not unicodedata.name(char, "").startswith(_UNSPACED)


@lru_cache(MAX_REMEMBERED)
def is_accent(char: str) -> bool:
    """Whether a folded character belongs to the one before it."""
    return unicodedata.category(char)[0] == "M"
