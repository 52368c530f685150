"""Light stemming: the inflected forms of one English word get one stem, other words keep theirs."""

import re
from functools import lru_cache
from typing import Final

from cache.guards import lexicon

_IRREGULAR: Final = {form: line.split()[0] for line in lexicon.lines("irregular") for form in line.split()}
_SPELLING: Final = {line.split()[0]: line.split()[1] for line in lexicon.lines("spelling")}
_NOT_ISE: Final = lexicon.bag(
    "advise advertise arise chemise comprise compromise concise devise disguise enterprise excise exercise expertise franchise "
    "improvise merchandise noise otherwise paradise poise praise precise premise promise raise revise rise supervise surprise "
    "televise treatise wise likewise bruise cruise anise reprise demise despise"
)
_VOWELS: Final = re.compile(r"[aeiouy]+")


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """The stem of one lower-case word; a word without one, or not English, is its own stem."""
    if not word.isascii() or not word.isalpha():
        return word
    return _drop_e(_american(_regular(word)))


def _regular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    word = _SPELLING.get(word, word)
    singular = _singular(word)
    if singular in _IRREGULAR:
        return _IRREGULAR[singular]
    return _base(_SPELLING.get(singular, singular))


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "ous")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-1] if word.endswith(("ases", "ises", "oses", "uses", "yses", "zes", "rses", "nses", "aches")) else word[:-2]
    return word[:-1]


def _base(word: str) -> str:
    """A verb's form without -ing or -ed."""
    for ending in ("ing", "ed"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) > 2 and _VOWELS.search(root) and not (ending == "ed" and word.endswith("eed")):
            if ending == "ed" and root.endswith("i"):
                return root[:-1] + "y"
            return _restored(root)
    return word


def _restored(root: str) -> str:
    """`runn` to `run`, `hop` to `hope`, `danc` to `dance`."""
    if root[-1] == root[-2] and root[-1] not in "lsz":
        return root[:-1]
    if len(_VOWELS.findall(root)) > 1:
        return root
    if (
        root[-1] in "cvuz"
        or (root[-1] == "s" and root[-2] in "aeiou")
        or (root.endswith(("rs", "ns", "ng", "dg", "rg", "bl", "tl", "dl", "pl", "gl")) and not root.endswith("ing"))
    ):
        return root + "e"
    short = root[-1] not in "aeiouwxy" and root[-2] in "aeiouy" and (len(root) < 3 or root[-3] not in "aeiou")
    return root + "e" if short else root


def _american(word: str) -> str:
    if len(word) > 5 and word.endswith("ise") and word not in _NOT_ISE:
        return word[:-2] + "ze"
    if (
        len(word) > 5
        and word.endswith("is")
        and word + "e" not in _NOT_ISE
        and word[-3] not in "aeiou"
        and word.endswith(("nis", "lis", "gis"))
    ):
        return word[:-1] + "z"
    return word.replace("isation", "ization")


def _drop_e(word: str) -> str:
    """A silent e goes where the forms in -ing have lost it, in words of more than one syllable."""
    if word.endswith("e") and len(_VOWELS.findall(word[:-1])) > 1:
        return word[:-1]
    return word
