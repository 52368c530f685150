"""Regular expressions: which may be used, and what their matches begin with."""

import math

import pytest
import re2
from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.content import patterns
from serve_app.content.patterns import MAX_PATTERN_CHARS, PatternError, check
from serve_app.content.prefixes import shape_of
from tests.serve_app.content.finding import rule, sent

LEAVES = ["a", "b", "c", ".", "[ab]", "[^a]", "[]a]", r"[\]b]", "[[:alpha:]]", r"\d", r"\x61", r"\x{62}", r"\141", r"\pL", r"\p{Han}"]
LEAVES += [r"\.", r"\Qa\E", r"\b", r"\B", "^", "$", r"\A", r"\z", "}", "]", "{", "x{,2}", "(?i)", "(?i-s)", "()"]
QUANTIFIERS = ["?", "*", "+", "{2}", "{0}", "{1,2}", "{0,2}", "{1,}", "??", "*?", "{1,2}?"]


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    groups = st.tuples(st.sampled_from(["(", "(?:", "(?i:", "(?s-i:"]), inner).map(lambda each: f"{each[0]}{each[1]})")
    repeated = st.tuples(groups | st.sampled_from(["a", "[ab]", "."]), st.sampled_from(QUANTIFIERS)).map("".join)
    return groups | repeated | st.tuples(inner, inner).map("".join) | st.tuples(inner, inner).map("|".join)


expressions = st.recursive(st.sampled_from(LEAVES), _larger, max_leaves=10)


def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.longest_match = True
    options.log_errors = False
    return re2.compile(pattern, options)


@given(expressions, st.text(alphabet="abcA .1中]{}\n", max_size=8))
def test_whatever_becomes_a_match_is_found_by_its_beginning(pattern: str, text: str) -> None:
    try:
        expression = _compiled(pattern)
    except re2.error:
        assume(False)
    shape = shape_of(pattern)
    begun = _compiled(rf"(?:{shape.beginnings})\z")
    for at in range(len(text)):
        match = expression.match(text, at)
        same = _compiled(f"(?:{shape.source})").match(text, at)
        assert (match and match.end()) == (same and same.end())
        if match:
            assert shape.least <= match.end() - at <= shape.most
            for end in range(at, match.end() + 1):
                assert begun.match(text[:end], at), (text[:end], at)


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("a", 1),
        ("a|bcd", 3),
        ("(ab){2,3}", 6),
        ("a+", math.inf),
        (r"\d{3}-\d{4}", 8),
        (r"\bx?y\b", 2),
        (r"a\Q**\E", 3),
        ("a(b{0,3}c){2}", 9),
    ],
)
def test_the_longest_match(pattern: str, most: float) -> None:
    assert check(pattern) == most


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a", r"missing \)"),
        (r"(a)\1", "invalid escape"),
        ("a(?=b)", "invalid perl operator"),
        (r"a\C", "parts of characters"),
        ("a*", "matches nothing at all"),
        (r"\b", "matches nothing at all"),
        ("a|", "matches nothing at all"),
        ("(a{500}){500}", "repetition"),
        (r"\pL{1000}", "too large"),
        ("a" * (MAX_PATTERN_CHARS + 1), "longer than"),
    ],
)
def test_what_cannot_be_used_says_why(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        check(pattern)


def test_patterns_see_the_text_as_it_is_written() -> None:
    assert sent("Key KEY", rule(patterns=["KEY"], mask=True)) == "Key ***"
    assert sent("Key KEY", rule(patterns=["(?i)key"], mask=True)) == "*** ***"


def test_what_may_become_a_longer_match_is_not_settled() -> None:
    matcher = patterns.PatternMatcher([rule(patterns=["ab{1,3}"])])
    assert matcher.scan("xab", 0, is_last=False) == (1, [])
    assert matcher.scan("xabc", 0, is_last=False).settled == 4


def test_masks_are_where_the_characters_are() -> None:
    card = rule(patterns=[r"\b\d{4}(?: ?\d{4}){3}\b"], mask=True)
    assert sent("卡号：4111 1111 1111 1111。谢谢", card) == "卡号：***。谢谢"  # noqa: RUF001
    assert sent("half \ud83d of 4111111111111111", card) == "half \ud83d of ***"


def test_expressions_that_are_too_large_together_are_tried_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_TOGETHER_BYTES", 8 * 1024)
    many = [rf"[ab]{{{number}}}x{number}" for number in range(1, 40)]
    assert sent("a" * 12 + "x12 b", rule(patterns=many, mask=True)) == "*** b"
