"""Sentences of the project's own documents and answers, questions made from them by rule, and variants about other things."""

import ast
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from deployments.demo_model.invented import Statement

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "benchmarks/NOTES.md")
PACKAGES = ("cache", "retrieval", "deployments", "serve_app")
MIN_WORDS, MAX_WORDS = 5, 32
MAX_SUBJECT = 7
MIN_LINE, MAX_LINE = 12, 160
AUXILIARIES = ("is", "are", "was", "were", "can", "may", "must", "will", "should", "cannot", "could")
WITH_AUXILIARY = (
    "What {verb} {subject}?",
    "How {verb} {subject} {rest}?",
    "Why {verb} {subject} {rest}?",
    "What {verb} {rest}?",
    "When {verb} {subject} {rest}?",
    "Where {verb} {subject} {rest}?",
    "Which one {verb} {rest}?",
    "{Verb} {subject} {rest}?",
)
WITH_VERB = (
    "What does {subject} {base}?",
    "How does {subject} {base} {rest}?",
    "Why does {subject} {base} {rest}?",
    "What {verb} {rest}?",
    "When does {subject} {base} {rest}?",
    "Where does {subject} {base} {rest}?",
    "What does {subject} do?",
    "Does {subject} {base} {rest}?",
    "Which one {verb} {rest}?",
)
_STOP = """
a an the of in on at to for with by from and or but if that this these those it its they them their there as so not no than then
is are was were be been has have had do does did can may must will should would could when where which what who how why while one
two all each every other another such only also more most some any into over under before after between without within
"""
STOP = frozenset(_STOP.split())
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_MARKUP = re.compile(r"[`*]|\[([^\]]*)\]\([^)]*\)")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def sentences(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def own_sentences() -> list[str]:
    """What the project's documents and docstrings say, without markup and code."""
    found = dict.fromkeys(sentence for paragraph in _paragraphs() for sentence in sentences(paragraph))
    return [sentence for sentence in found if plain(sentence)]


def own_lines() -> list[str]:
    """Lines of the project's documents as they are: headings, code, rows of tables."""
    lines = dict.fromkeys(line.strip() for name in DOCUMENTS for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if MIN_LINE <= len(line) <= MAX_LINE]


def _paragraphs() -> Iterator[str]:
    for name in DOCUMENTS:
        text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
        for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.))", text):
            yield cleaned(re.sub(r"^\s*(?:[-*#]+|\d+\.)\s*", "", paragraph))
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from map(cleaned, (ast.get_docstring(node) or "").split("\n\n"))


def cleaned(text: str) -> str:
    """In one line, without markup."""
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", text).split())


def plain(sentence: str) -> bool:
    """Whether it looks like a sentence, of a length that can be learnt."""
    words = sentence.split()
    return MIN_WORDS <= len(words) <= MAX_WORDS and sentence[0].isupper() and sentence[-1] == "." and not set(sentence) & set("|{}<>#=\\[]")


def asked(sentence: str, rng: random.Random) -> str:
    """A question that this sentence answers, made from its words; often in fewer of them."""
    words = sentence.rstrip(".").split()
    verb = next((place for place in range(1, min(len(words), MAX_SUBJECT + 1)) if _is_verb(words[place])), None)
    if verb is None or rng.random() < 0.3:
        return _keywords(words, rng)
    subject, rest = " ".join(_lowered(words[:verb])), _part(words[verb + 1 :], rng)
    form = rng.choice(WITH_AUXILIARY if words[verb] in AUXILIARIES else WITH_VERB)
    auxiliary = words[verb].replace("cannot", "can")
    return _tidy(form.format(subject=subject, rest=rest, verb=auxiliary, Verb=auxiliary.capitalize(), base=_base(words[verb])))


def telling(text: str) -> set[str]:
    """Its words in lower case, without those that any sentence may have."""
    return {word.lower() for word in _WORD.findall(text) if len(word) > 2} - STOP


def _is_verb(word: str) -> bool:
    return (
        word in AUXILIARIES
        or word in ("has", "does", "goes")
        or (len(word) > 4 and word.islower() and word.endswith("s") and word[-2] not in "su")
    )


def _base(verb: str) -> str:
    irregular = {
        "has": "have",
        "does": "do",
        "goes": "go",
        "carries": "carry",
        "tries": "try",
        "passes": "pass",
        "reaches": "reach",
        "watches": "watch",
    }
    return irregular.get(verb, verb[:-1])


def _lowered(words: list[str]) -> list[str]:
    first = words[0]
    return [first.lower() if first[1:].islower() or len(first) == 1 else first, *words[1:]]


def _part(words: list[str], rng: random.Random) -> str:
    """Its first words, or most of them."""
    if not words:
        return ""
    kept = words[: rng.randint(1, max(1, len(words)))][: rng.randint(3, 9)]
    return " ".join(word for word in kept if rng.random() < 0.9).strip(",;:") or kept[0]


def _keywords(words: list[str], rng: random.Random) -> str:
    telling = [word.strip(",;:()\"'") for word in words if len(word) > 2 and word.lower() not in STOP]
    if not telling:
        return " ".join(words)
    kept = sorted(rng.sample(range(len(telling)), min(len(telling), rng.randint(2, 4))))
    chosen = " ".join(telling[place] for place in kept)
    return rng.choice(
        ("{}", "{}?", "What about {}?", "What is said of {}?", "Tell me about {}.", "Explain {}.", "What is the {}?", "How does {} work?")
    ).format(chosen)


def _tidy(question: str) -> str:
    return re.sub(r"\s+", " ", question).replace(" ?", "?").replace(",?", "?")


class Disguise:
    """Exchanges words of a statement for others, the same in sentence and questions: then it is known to nobody, and has to be read."""

    def __init__(self, words: Iterable[str], rng: random.Random) -> None:
        self._words, self._rng = list(words), rng

    def statement(self, statement: Statement, share: float) -> Statement:
        other = self.exchange(statement.sentence, share)
        return Statement(other(statement.sentence), tuple(map(other, statement.questions)), statement.topic)

    def exchange(self, text: str, share: float) -> Callable[[str], str]:
        """A function that exchanges this share of the text's words, in any text."""
        rng = self._rng
        known = dict.fromkeys(word.lower() for word in _WORD.findall(text) if len(word) > 3 and word.lower() not in STOP)
        exchanged = {word: rng.choice(self._words) for word in known if rng.random() < share}

        def other(match: re.Match[str]) -> str:
            new = exchanged.get(match[0].lower(), match[0])
            return new if match[0].islower() else new[:1].upper() + new[1:]

        return lambda text: _WORD.sub(other, text)
