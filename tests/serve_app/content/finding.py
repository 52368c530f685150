"""What rules are to find, found the slow way."""

from collections.abc import Iterable, Sequence

import re2

from serve_app.content.base import MASK, LookAlikes, Rule
from serve_app.content.factory import make_matcher
from serve_app.content.stream import Stream


def rule(*words: str, name: str = "r", patterns: Iterable[str] = (), mask: bool = False, look_alikes: LookAlikes = "mixed") -> Rule:
    return Rule(name, "mask" if mask else "block", words, tuple(patterns), look_alikes)


def streamed(pieces: Iterable[str], rules: Sequence[Rule], masks: bool = True) -> tuple[list[str], Rule | None]:
    """What comes of each piece, and at the end; and the rule that ended it."""
    matcher = make_matcher(rules)
    assert matcher is not None
    stream = Stream(matcher, masks)
    return [*map(stream.feed, pieces), stream.end()], stream.blocked_by


def sent(text: str, *rules: Rule) -> str:
    """What passes of a whole text; `!` for its end by a rule."""
    pieces, blocked = streamed([text], rules)
    return "".join(pieces) + ("!" if blocked else "")


def by_definition(text: str, rules: Sequence[Rule]) -> str:
    """The same for rules with patterns only: an expression is tried at every character."""
    options = re2.Options()
    options.longest_match = True
    found = [
        (at, each.action == "mask", match.end())
        for each in rules
        for pattern in each.patterns
        for at in range(len(text))
        if (match := re2.compile(pattern, options).match(text, at))
    ]
    passed, covered = "", 0
    for begin, is_mask, end in sorted(found):
        passed += text[covered:begin]
        if not is_mask:
            return passed + "!"
        passed += MASK if begin >= covered else ""
        covered = max(covered, end)
    return passed + text[covered:]
