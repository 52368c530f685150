"""Numbers written as words, ordinals, times and scales, folded into one token each."""

from typing import Final

from cache.guards import lexicon
from cache.guards.lexicon import bag
from cache.guards.numerals import HAN_NUMERALS, HAN_SCALES, ORDINALS, ROMAN, SCALES, SMALL, chinese, english, scaled
from cache.guards.tokens import Tokens

_ORDINAL_ENDINGS: Final = frozenset({"st", "nd", "rd", "th"})
_DETERMINERS: Final = bag("the my his her their your our its a every world")
_MEASURES: Final = frozenset(lexicon.words("measures"))
_LONGEST_RUN: Final = 16
_WORDS: Final = SMALL.keys() | SCALES.keys()


def fold(tokens: Tokens) -> Tokens:
    """Each number as one token: `5`, `2.5`, `-3`, `12th`, `19:00`, `1960s`."""
    folded = Tokens([], [], [], [])
    at, size = 0, len(tokens.words)
    while at < size:
        word = tokens.words[at]
        value, used = word, 1
        if word in _STARTERS or word[0].isdigit():
            value, used = _number(tokens, at)
        elif word == "-" and at + 1 < size and tokens.words[at + 1][0].isdigit() and tokens.glued[at + 1] and not tokens.glued[at]:
            value, used = _number(tokens, at + 1)
            value, used = "-" + value, used + 1
        elif word in ("ii", "iii", "iv", "vi", "vii", "viii", "ix") and at and tokens.surfaces[at] in ROMAN:
            value = ROMAN[tokens.surfaces[at]]
        folded.add(value, tokens.surfaces[at], tokens.glued[at], tokens.initial[at])
        at += used
    return folded


_STARTERS: Final = _WORDS | ORDINALS.keys() | HAN_NUMERALS | {"one", "a"}


def _number(tokens: Tokens, at: int) -> tuple[str, int]:
    """The number that begins at a token and how many tokens it takes; the token itself if it begins none."""
    word = tokens.words[at]
    if word in ORDINALS:
        return _ordinal(tokens, at)
    if word in HAN_NUMERALS:
        return _chinese(tokens, at)
    end = _run_end(tokens, at)
    if end - at > 1 or word in SMALL:
        value = english(tokens.words[at:end])
        if value is not None:
            return _with_ordinal(tokens, value, end, end - at)
    if word[0].isdigit():
        return _suffixed(tokens, at)
    return str(SMALL.get(word, word)), 1


def _run_end(tokens: Tokens, at: int) -> int:
    """Where the run of number words from `at` ends. `one` and `a` begin a run only before a scale."""
    words, end = tokens.words, at + 1
    if words[at] in ("one", "a"):
        return _run_end(tokens, end) if end < len(words) and words[end] in SCALES else at + 1
    while end < min(len(words), at + _LONGEST_RUN):
        joined = words[end] == "and" and end + 1 < len(words) and words[end + 1] in SMALL and words[end - 1] in ("hundred", "thousand")
        if not (words[end] in _WORDS or joined or (words[end] == "one" and words[end - 1] in SMALL)):
            break
        end += 1
    return end


def _with_ordinal(tokens: Tokens, value: str, end: int, used: int) -> tuple[str, int]:
    """`twenty` and `first` make 21th."""
    if end < len(tokens.words) and ORDINALS.get(tokens.words[end], 20) < 10 and value.isdigit() and value.endswith("0"):
        return f"{int(value) + ORDINALS[tokens.words[end]]}th", used + 1
    return value, used


def _ordinal(tokens: Tokens, at: int) -> tuple[str, int]:
    """`second` is a number only after a determiner: it is a unit as well."""
    word = tokens.words[at]
    if word == "first":
        return word, 1
    after = tokens.words[at + 1] if at + 1 < len(tokens.words) else ""
    counts = after.endswith("est") or after == "most" or (at and tokens.words[at - 1] in _DETERMINERS)
    if word == "second" and not counts:
        return word, 1
    return f"{ORDINALS[word]}th", 1


def _suffixed(tokens: Tokens, at: int) -> tuple[str, int]:
    """A number in digits with what is written after it: 1st, 50k, 1960s, 7 pm, 20万."""
    word = tokens.words[at]
    after = tokens.words[at + 1] if at + 1 < len(tokens.words) else ""
    glued = bool(after) and tokens.glued[at + 1]
    if after in ("am", "pm"):
        return _clock(word, after), 2
    if after in ("a", "p") and tokens.words[at + 2 : at + 3] == ["m"]:
        return _clock(word, after + "m"), 3
    if after in HAN_SCALES and (value := scaled(word, HAN_SCALES[after])):
        return value, 2
    if glued and after in _ORDINAL_ENDINGS:
        return "first" if word == "1" else f"{word}th", 2
    if glued and after == "k" and (value := scaled(word, 1000)):
        return value, 2
    if glued and after == "s" and word.endswith("0"):
        return f"{word}s", 2
    return word, 1


def _clock(digits: str, half: str) -> str:
    hour, _, minute = digits.partition(":")
    if not hour.isascii() or not hour.isdigit() or len(hour) > 2:
        return digits
    return f"{int(hour) % 12 + (12 if half == 'pm' else 0)}:{minute or '00'}"


def _chinese(tokens: Tokens, at: int) -> tuple[str, int]:
    """A run of Chinese numerals is a number if it is long, or counted by a measure word, or an ordinal; else a character."""
    end = at
    while end < min(len(tokens.words), at + _LONGEST_RUN) and tokens.words[end] in HAN_NUMERALS:
        end += 1
    run = "".join(tokens.words[at:end])
    measured = end < len(tokens.words) and (tokens.words[end] in _MEASURES or tokens.words[end][0] in _MEASURES)
    if len(run) > 1 and run[-1] == "两":
        measured, run, end = True, run[:-1], end - 1
    if (len(run) > 1 or measured or (at and tokens.words[at - 1] == "第")) and run[0] not in "万亿":
        return chinese(run), end - at
    return tokens.words[at], 1
