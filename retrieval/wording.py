"""How errors say which field of a request is at fault."""

import difflib
import re
from collections.abc import Mapping, Sequence

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""A name that is repeated: what else a key may hold, a whole document at worst, is not."""
_ELSEWHERE: Mapping[str, str] = {
    "top_k": "max_num_results",
    "max_num_results": "top_k",
    "score_threshold": "ranking_options.score_threshold",
    "ranking_options": "score_threshold",
}
"""What one route calls so, and another otherwise: a search is OpenAI's, `retrieval` in a chat is not."""


def unknown_field(path: str, name: str, known: Sequence[str]) -> tuple[str, str]:
    """Of an object at `path` (empty: the whole body) that has a field `name` besides those `known`: what is at fault, and how to say it.

    The text has no full stop.
    """
    allowed = f"; allowed: {', '.join(known)}" if known else ""
    if not _FIELD.fullmatch(name):
        return path, f"{path or 'The object'} has a field that is not known{allowed}"
    place = f"{path}.{name}".lstrip(".")
    meant = _meant(name, known)
    return place, f"{place} is not known{allowed}" + (f"; did you mean {meant}?" if meant else "")


def _meant(name: str, known: Sequence[str]) -> str | None:
    elsewhere = _ELSEWHERE.get(name, "")
    if elsewhere.split(".")[0] in known:
        return elsewhere
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def sentence(text: str, field: str) -> str:
    """The reason as a sentence that names the field."""
    named = text if text.startswith(f"{field} ") or not field else f"{field}: {text}"
    return named if named.endswith(("?", ".")) else f"{named}."
