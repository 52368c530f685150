"""What single guards look at, found once for each question."""

import re
from typing import Final

from cache.guards.lexicon import bag
from cache.guards.stems import stem
from cache.guards.terms import Terms
from cache.guards.tokens import Tokens
from cache.guards.vocabulary import FUNCTION, NAME_CLASS, PLAIN_NAMES, UNITS

NEGATORS: Final = bag(
    "not no never without neither nor none nobody nothing nowhere hardly barely cannot non lack "
    "不 没 没有 无 非 别 未 勿 不能 不会 不要 不用 不可 不可以 不是 不需要"
)
_ALTERNATIVE: Final = frozenset({"or", "if"})
_PRECEDING: Final = frozenset({"dollar", "euro", "gbp", "yen", "yuan", "rupee"})

_LITERAL: Final = re.compile(
    r"```.{1,4000}?```|`[^`\n]{1,400}`"
    r"|\"{1,2}[^\"\n]{1,200}\"{1,2}"
    r"|(?<!\w)'[^'\n]{1,80}'(?!\w)"
    r"|(?:https?://|www\.)[^\s\"'<>，。？！]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|(?<![\w-])--?[A-Za-z][\w-]*"
    r"|[A-Za-z]:\\[^\s\"']+"
    r"|(?<![\w/])(?:~|\.{1,2})?/[A-Za-z][\w.-]*(?:/[\w.-]*)*"
    r"|(?<!\w)[A-Za-z_]\w*(?:(?:::|->|\.)[A-Za-z_]\w*)+(?:\(\))?"
    r"|(?<!\w)\w*_\w+(?:\(\))?|(?<!\w)[A-Za-z]\w*\(\)"
    r"|(?<!\w)[a-z]{2,}[A-Z]\w*"
    r"|(?<!\w)0x[0-9A-Fa-f]+|(?<!\w)(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,64}(?!\w)"
    r"|《[^》]{1,100}》"
    r"|(?<!\S)(?![-&?!.,:;/+]+(?!\S))[!-/:-@\[-`{-~]{1,8}(?!\S)|\(\W{0,3}\)|\[\W{0,3}\]|\{\W{0,3}\}|#(?!\w)|(?<=\s)@(?!\w)",
    re.ASCII | re.DOTALL,
)
_HINT: Final = re.compile(r"[^\w\s,?.!]|_|\.\w|www\.|[a-z][A-Z]|0x|[0-9][a-f]|[a-f][0-9]", re.ASCII)
"""Every literal has one of these. Most questions have none, and are not searched for a third of their parsing's time."""
_GLUED_SENTENCE: Final = re.compile(r"[A-Za-z]+\.([A-Za-z]+)(?:\(\))?$")
_INITIALS: Final = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]$")


def quantities(heads: list[str]) -> tuple[tuple[str, str], ...]:
    """(number, unit): the unit is the term after the number, or the currency's sign before it."""
    found = []
    for at, head in enumerate(heads):
        if head[0].isdigit() or (head[0] == "-" and len(head) > 1):
            unit = heads[at - 1] if at and heads[at - 1] in _PRECEDING else ""
            if not unit and at + 1 < len(heads) and heads[at + 1] in UNITS:
                unit = heads[at + 1]
            found.append((_trimmed(head) if unit else head, unit))
    return tuple(found)


def _trimmed(number: str) -> str:
    """`5.0` of a unit is 5; alone it may be a version."""
    return number.rstrip("0").rstrip(".") if number.count(".") == 1 else number


def names(tokens: Tokens, terms: Terms) -> frozenset[str]:
    """Known names, and words written as names in the middle of a sentence."""
    found = set()
    for head, start in zip(terms.heads, terms.starts, strict=True):
        known = head in NAME_CLASS and (head in PLAIN_NAMES or start in terms.cased or not tokens.words[start].isascii())
        unknown = not terms.titled and start not in terms.listed and head not in FUNCTION
        if known or (unknown and _is_written_as_name(tokens, start)):
            found.add(head)
    return frozenset(found)


def _is_written_as_name(tokens: Tokens, at: int) -> bool:
    surface = tokens.surfaces[at]
    if len(surface) < 2 or surface.islower():
        return len(surface) == 1 and surface.isupper() and surface not in "IA" and not tokens.initial[at]
    return any(char.isupper() for char in (surface[1:] if tokens.initial[at] else surface))


def negations(heads: list[str]) -> int:
    """How often a text negates. `or not`, `if not` and `not only` add an alternative and negate nothing."""
    count = 0
    for at, head in enumerate(heads):
        if head in NEGATORS and not (at and heads[at - 1] in _ALTERNATIVE) and heads[at + 1 : at + 2] != ["only"]:
            count += 1
    return count


def literals(text: str) -> frozenset[str]:
    """Spans that must not change by a letter, without their quotation marks."""
    if _HINT.search(text) is None:
        return frozenset()
    found = (match[0].strip("`\"'《》") for match in _LITERAL.finditer(text))
    return frozenset(span.strip().rstrip(".,;:?!") for span in found if not _is_prose(span)) - {""}


def _is_prose(span: str) -> bool:
    """Initials, or two sentences that lack the space between them."""
    if _INITIALS.match(span):
        return True
    glued = _GLUED_SENTENCE.match(span)
    return glued is not None and (stem(glued[1].lower()) in FUNCTION or span.lower().endswith((".js", ".net")))
