"""Text to words: what a question is made of before anything is known about meaning."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from cache.guards import lexicon, numerals

_LINK: Final = r"(?P<link>(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+)|"
_NO_LINK: Final = (
    r"(?P<word>[^\W\d_㐀-鿿](?:[^\W\d_㐀-鿿]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u0e00-\u0eff])*(?:['&][^\W\d_㐀-鿿]+)*(?:\+\+|\#(?!\w))?)"
    r"|(?P<date>(?<!\d)\d{4}[-/]\d{1,2}[-/]\d{1,2}(?!\d))"
    r"|(?P<time>(?<!\d)\d{1,2}:\d{2}(?!\d))"
    r"|(?P<number>\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d|,\d)(?:\.\d+)?|\d+(?:\.\d+)+|\d{1,2}(?:/\d{1,2})(?:/\d{2,4})?(?![\d/])|\d+)"
    r"|(?P<han>[㐀-鿿]+)"
    r"|(?P<sign>[%$€£¥₹°^*+=<>×÷√/-])"
    r"|(?P<other>[^\s\w\x00-\x7f\u2010-\u203a\u3000-\u303f\uff00-\uffef]+)"
)
_TOKEN, _TOKEN_OR_LINK = re.compile(_NO_LINK), re.compile(_LINK + _NO_LINK)
_LINK_HINT: Final = re.compile("@|://|www\\.")
"""Most texts have no link, and looking for one takes half of their scanning."""
_QUOTES: Final = str.maketrans("‘’‛′`´“”„″«»「」『』", '\'\'\'\'``""""""""""')


def _written(how: str) -> re.Pattern[str]:
    """Runs of the characters that Unicode says are written so: NFKC would make x2 of x²."""
    return re.compile(f"[{''.join(chr(code) for code in range(0xA0, 0xAC00) if unicodedata.decomposition(chr(code)).startswith(how))}]+")


_SUPERSCRIPT: Final = _written("<super>")
_SUBSCRIPT: Final = _written("<sub>")
_STACKED: Final = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{8})[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
"""More marks on one letter than any language writes: sorting them takes NFKC quadratic time."""
_VULGAR: Final = re.compile("[¼-¾⅐-⅞]")
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
_BEFORE_INITIAL: Final = frozenset('.!?:;。！？\n("')
_FAR: Final = 8
"""Characters that are looked at: what is behind more spaces begins nothing."""

_CONTRACTED: Final = {
    "won't": ("will", "not"),
    "can't": ("can", "not"),
    "shan't": ("shall", "not"),
    "cannot": ("can", "not"),
    "let's": ("let", "us"),
    "y'all": ("you", "all"),
    "gonna": ("going", "to"),
    "wanna": ("want", "to"),
    "dont": ("do", "not"),
    "doesnt": ("does", "not"),
    "didnt": ("did", "not"),
    "isnt": ("is", "not"),
    "arent": ("are", "not"),
    "wasnt": ("was", "not"),
    "cant": ("can", "not"),
    "whats": ("what", "is"),
    "hows": ("how", "is"),
    "im": ("i", "am"),
    "u": ("you",),
    "ur": ("your",),
    "pls": ("please",),
    "plz": ("please",),
    "thx": ("thanks",),
}
_SUFFIXES: Final = {"'re": "are", "'ve": "have", "'ll": "will", "'m": "am", "'d": "would"}
_SUBJECTS: Final = lexicon.bag("what who where when how why which that it there here he she this")
_A_NOT_A: Final = re.compile(r"(.)[不没]\1")


@dataclass(slots=True)
class Tokens:
    """Aligned lists: `words` are lower-case and expanded, `surfaces` as written ('' for the rest of an expansion)."""

    words: list[str]
    surfaces: list[str]
    glued: list[bool]
    """Written without a space after the token before."""
    initial: list[bool]
    """At the beginning of a sentence or a quotation."""

    def add(self, word: str, surface: str, glued: bool = False, initial: bool = False) -> None:
        self.words.append(word)
        self.surfaces.append(surface)
        self.glued.append(glued)
        self.initial.append(initial)


def clean(text: str) -> str:
    """NFKC with straight quotes, without invisible characters, keeping powers (x²), indices (x₂) and mixed fractions (1½) apart."""
    if text.isascii():
        return text
    text = _STACKED.sub(r"\1", text.translate(_INVISIBLE))
    text = _SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
    text = _SUBSCRIPT.sub(lambda match: "_" + unicodedata.normalize("NFKC", match[0]), text)
    text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]).replace("⁄", "/"), text)
    return unicodedata.normalize("NFKC", text).translate(_QUOTES).replace("–", "-").replace("−", "-").replace("—", " - ")


def scan(text: str) -> Tokens:
    """The tokens of a cleaned text, numbers in digits as far as one token tells."""
    tokens = Tokens([], [], [], [])
    end = 0
    for match in (_TOKEN_OR_LINK if _LINK_HINT.search(text) else _TOKEN).finditer(text):
        start, stop = match.span()
        glued = start == end and start > 0
        kind = match.lastgroup
        surface = match[0]
        if kind == "word":
            _add_word(tokens, surface, glued, _is_initial(text, start))
        elif kind == "han":
            for word in segment(surface):
                tokens.add(word, word)
        elif kind == "date":
            for part in re.split("[-/]", surface):
                tokens.add(part.lstrip("0") or "0", part)
        elif kind == "number":
            tokens.add(numerals.ungrouped(surface), surface, glued)
        elif kind != "sign" or surface not in "/-" or _is_operator(text, start, stop):
            tokens.add(surface, surface, glued)
        end = stop
    return tokens


def _is_initial(text: str, start: int) -> bool:
    """Whether what is before, but for a few spaces, ends a sentence or begins a quotation."""
    for char in reversed(text[max(0, start - _FAR) : start]):
        if char in _BEFORE_INITIAL:
            return True
        if not char.isspace():
            return False
    return start <= _FAR


def _is_operator(text: str, start: int, end: int) -> bool:
    """A stroke or slash between numbers or single letters, or before a number, is arithmetic; else it only joins words."""
    after = text[end : end + 2].lstrip()[:1]
    return after.isdigit() and (start == 0 or not text[start - 1].isalpha()) and text[start - 1 : start] != "-"


def _add_word(tokens: Tokens, surface: str, glued: bool, initial: bool) -> None:
    word = surface.lower()
    if "'" not in word and word not in _CONTRACTED:
        tokens.add(word, surface, glued, initial)
        return
    first, *rest = _expand(word)
    tokens.add(first, surface.split("'")[0], glued, initial)
    for other in rest:
        tokens.add(other, "")


def _expand(word: str) -> tuple[str, ...]:
    if word in _CONTRACTED:
        return _CONTRACTED[word]
    if word.endswith("n't"):
        return (word[:-3], "not") if word != "n't" else ("not",)
    if word.endswith("'s"):
        return (word[:-2], "is") if word[:-2] in _SUBJECTS else (word[:-2],)
    head, quote, tail = word.partition("'")
    if quote + tail in _SUFFIXES:
        return head, _SUFFIXES[quote + tail]
    return (word.replace("'", ""),)


def _vocabulary() -> dict[str, int]:
    """Chinese words by first character: the longest of them; and every word itself."""
    entries = set(lexicon.words("chinese")) | set(lexicon.words("function"))
    for name in ("synonyms_zh", "units"):
        entries.update(word.rstrip("*") for group in lexicon.groups(name) for word in group)
    for left, right in lexicon.opposites("antonyms_zh"):
        entries.update(left, right)
    entries.update(name.rstrip("*") for _, names in lexicon.sections("names") for name in names)
    found: dict[str, int] = {}
    for entry in entries:
        if len(entry) > 1 and "㐀" <= entry[0] <= "鿿":
            found[entry] = 0
            found[entry[0]] = max(found.get(entry[0], 0), len(entry))
    return found


_VOCABULARY: Final = _vocabulary()


def segment(run: str) -> list[str]:
    """Maximal matching, forwards: words that the lists know, single characters for the rest."""
    found: list[str] = []
    at, size = 0, len(run)
    while at < size:
        for length in range(min(_VOCABULARY.get(run[at], 0), size - at), 1, -1):
            if run[at : at + length] in _VOCABULARY:
                break
        else:
            length = 1
            if _A_NOT_A.match(run, at):
                found += ["是否", run[at]]
                at += 3
                continue
        found.append(run[at : at + length])
        at += length
    return found
