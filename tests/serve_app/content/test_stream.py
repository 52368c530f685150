"""Texts that come in pieces."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.content import stream as stream_module
from serve_app.content.base import Rule
from tests.serve_app.content.finding import by_definition, rule, sent, streamed

PATTERNS = [
    "ab",
    r"a\b",
    r"\Bb",
    r"\ba",
    "^a",
    "b$",
    "(?m)^b{1,2}$",
    "(?i)AB{1,3}c?",
    "a(?i)b|CB",
    "(a|bc){1,3}(?-i:C)",
    "a.{0,3}?b",
    r"(?s).{2}c",
    "[^a]b{2}",
    "中{1,2}文?",
    r"a\Q.b\Ec?",
    "(?P<x>a(?:b(c){0,2}){1,2}){1,2}",
    r"\p{Han}é",
]
WORDS = ["ab", "b", "a b", "abc", "中文", "中", "é", "ba", "ss"]
texts = st.text(alphabet="aabbcC 中文é\u0301.\nß\uff21", max_size=30)
actions = st.sampled_from(["block", "mask"])
patterned = st.builds(Rule, st.just("r"), actions, st.just(()), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(tuple))
worded = st.builds(Rule, st.just("r"), actions, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(tuple))
rules = st.lists(patterned | worded, min_size=1, max_size=3)


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in pairwise(at)]


@given(texts, rules, st.lists(st.integers(0, 30)))
def test_any_cut_of_any_text_gives_the_same_as_the_whole(text: str, rules: list[Rule], places: list[int]) -> None:
    whole, blocked = streamed([text], rules)
    pieces, blocked_too = streamed(cut(text, places), rules)
    assert ("".join(pieces), blocked_too) == ("".join(whole), blocked)


@given(texts, rules)
def test_character_by_character_too(text: str, rules: list[Rule]) -> None:
    assert "".join(streamed(text, rules)[0]) == "".join(streamed([text], rules)[0])


@given(texts, st.lists(patterned, min_size=1, max_size=3))
@example("aab", [Rule("r", "mask", (), ("a{1,2}",)), Rule("r", "block", (), ("ab",))])
def test_what_passes_is_what_no_match_has(text: str, rules: list[Rule]) -> None:
    assert sent(text, *rules) == by_definition(text, rules)


def test_long_texts_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "BLOCK_CHARS", 3)
    assert sent("a secret here, and a secret there", rule("secret", mask=True)) == "a *** here, and a *** there"


@pytest.mark.parametrize(
    ("pieces", "come"),
    [
        (["Hello", " world"], ["Hello", " world", ""]),  # nothing waits that cannot become a match
        (["the sec", "ond"], ["the ", "second", ""]),
        (["a sec", "ret"], ["a ", "", ""]),
        (["secrets", " and"], ["secrets", " and", ""]),
        (["x", "secret"], ["x", "secret", ""]),
        (["bar ", "secret "], ["bar ", "", ""]),
    ],
)
def test_only_what_may_become_a_match_waits(pieces: list[str], come: list[str]) -> None:
    assert streamed(pieces, [rule("secret")])[0] == come


def test_only_what_may_become_a_match_of_a_pattern_waits() -> None:
    mail = rule(patterns=[r"\b\w{1,20}@\w{1,20}\.com"], mask=True)
    assert streamed(["Ask", " me", "@example", ".com", " or", " him."], [mail])[0] == ["", "Ask ", "", "", "*** ", "or him.", ""]


def test_a_mask_over_another_is_one() -> None:
    assert sent("one two three", rule("one two", "two three", mask=True)) == "***"
    assert sent("one one", rule("one", mask=True)) == "*** ***"
    assert sent("aaa", rule(patterns=["a"], mask=True)) == "*********"


def test_the_first_match_of_a_blocking_rule_is_the_end() -> None:
    rules = [rule("two", name="second"), rule("one", name="first"), rule("zero", name="masked", mask=True)]
    pieces, blocked = streamed(["zero one two"], rules)
    assert ("".join(pieces), blocked) == ("*** ", rules[1])


def test_where_masks_do_harm_only_blocking_rules_count() -> None:
    rules = [rule("one", mask=True), rule("two")]
    pieces, blocked = streamed(["one two three"], rules, masks=False)
    assert ("".join(pieces), blocked) == ("one ", rules[1])
