"""Minimal edits: pairs of questions a few words apart, labelled by hand with whether one answer serves both.

The labels were made for one question asked once, out of any context: `same` means that a good answer to `a` is a good answer
to `b`. Two halves: `dev` may be read while guards are changed, `check` is only counted.

Source format, one line for a template: `{x|y}` gives x in `a` and y in `b`; ` ; ` divides several pairs of one template, taken
together over all the braces of the line (a brace with one pair serves for all). `== same|different CLASS LANG` heads a section.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BRACE = re.compile(r"\{([^{}]*)\}")
HALVES = ("dev", "check")


@dataclass(frozen=True, slots=True)
class Edit:
    """Two questions; `kind` is the class of the edit, `lang` is en or zh, `half` is dev or check."""

    a: str
    b: str
    same: bool
    kind: str
    lang: str
    half: str


def load(half: str | None = None) -> list[Edit]:
    """All edits, or those of one half, in the order of the files."""
    return [edit for name in HALVES if half in (None, name) for edit in _read(name)]


def _read(half: str) -> Iterator[Edit]:
    same, kind, lang = "", "", ""
    for line in (Path(__file__).parent / f"{half}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            same, kind, lang = line[3:].split()
        elif line and not line.startswith("#"):
            for a, b in _expand(line):
                yield Edit(a, b, same == "same", kind, lang, half)


def _expand(template: str) -> Iterator[tuple[str, str]]:
    choices = [[_sides(pair) for pair in brace.split(" ; ")] for brace in _BRACE.findall(template)]
    for n in range(max(map(len, choices))):
        chosen = [pairs[n] if len(pairs) > 1 else pairs[0] for pairs in choices]
        yield _fill(template, [a for a, _ in chosen]), _fill(template, [b for _, b in chosen])


def _sides(pair: str) -> tuple[str, str]:
    a, b = pair.split("|")
    return a, b


def _fill(template: str, values: list[str]) -> str:
    rest = iter(values)
    return _BRACE.sub(lambda _: next(rest), template)
