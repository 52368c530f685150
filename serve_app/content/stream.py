"""A text as it passes rules, piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from serve_app.content.base import MASK, Matcher, Rule, Scan
from serve_app.content.invisible import last_visible

BLOCK_CHARS = 4096
"""Longer pieces are looked at in such blocks: what a search costs goes with what is before it."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A `Matcher` of several, at least one."""

    matchers: Sequence[Matcher]

    def scan(self, text: str, start: int, is_last: bool) -> Scan:
        scans = [each.scan(text, start, is_last) for each in self.matchers]
        settled = min(scan.settled for scan in scans)
        return Scan(settled, [match for scan in scans for match in scan.matches if match.start < settled])

    def begins(self, lines: str) -> Iterator[int]:
        return chain.from_iterable(each.begins(lines) for each in self.matchers)


class Stream:
    """What may be sent of one text: never a character of a match, however the text is cut into pieces.

    Of what cannot be told yet nothing is sent, which is no more than the longest match that a rule allows.
    """

    def __init__(self, rules: Matcher, masks: bool = True) -> None:
        """`masks`: False where masked text would do harm: then only blocking rules count."""
        self._rules = rules
        self._masks = masks
        self._text = ""  # what waits, and the last character before it that is seen
        self._start = 0  # where that begins
        self._covered = 0  # up to here it belongs to a match that was masked
        self.blocked_by: Rule | None = None
        """The rule that ended it: nothing more comes."""
        self.matched: list[Rule] = []
        """The rules that were acted on, once for each time."""

    def feed(self, piece: str) -> str:
        """What may be sent now."""
        return "".join(self._advance(piece[at : at + BLOCK_CHARS], is_last=False) for at in range(0, len(piece), BLOCK_CHARS))

    def end(self) -> str:
        """What was held back."""
        return self._advance("", is_last=True)

    def _advance(self, piece: str, is_last: bool) -> str:
        if self.blocked_by:
            return ""
        text, sent = self._text + piece, []
        settled, matches = self._rules.scan(text, self._start, is_last)
        at = max(self._start, self._covered)
        for begin, end, rule in sorted(matches, key=lambda match: (match.start, match.rule.action)):
            if rule.action == "block":
                sent.append(text[at:begin])
                self.matched.append(rule)
                self.blocked_by, self._text = rule, ""
                return "".join(sent)
            if not self._masks:
                continue
            if begin >= self._covered:
                sent += (text[at:begin], MASK)
                self.matched.append(rule)
            at = self._covered = max(self._covered, end)
        sent.append(text[at:settled])
        before = last_visible(text, settled)
        self._text, self._start = before + text[settled:], len(before)
        self._covered = max(settled, self._covered) - settled + len(before)
        return "".join(sent)


def passed(text: str, rules: Matcher, masks: bool = True) -> tuple[str, Stream]:
    """What of a whole text may be sent, and what is to be known of it."""
    stream = Stream(rules, masks)
    if len(text) <= BLOCK_CHARS:
        return stream._advance(text, is_last=True), stream
    return stream.feed(text) + stream.end(), stream
