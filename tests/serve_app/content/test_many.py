"""Requests with very many texts."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.content import many
from serve_app.content.base import Rule
from serve_app.content.factory import make_matcher
from serve_app.content.many import in_question
from serve_app.content.prompts import Checked
from serve_app.content.stream import passed
from serve_app.errors import InvalidRequestError
from serve_app.openai.requests import parse_chat
from tests.serve_app.content.finding import rule
from tests.serve_app.fakes import MODEL

MANY = 400_000
RULES = [rule("secret", "猎鹰计划", "top cop"), rule(name="p", patterns=[r"\b\d(?:[ -]?\d){12,18}\b", "^foo$"], mask=True)]


def checked(*rules: Rule, **fields: Any) -> Checked:
    matcher = make_matcher(rules or RULES)
    assert matcher is not None
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}
    return Checked(parse_chat(json.dumps(body).encode()), matcher)


def tools(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": {"enum": texts}}}]


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"a": ["a"] * MANY}},
        {"chat_template_kwargs": {"a": [f"{number:x}" for number in range(MANY)]}},
        {"chat_template_kwargs": {f"{number:x}": "" for number in range(190_000)}},
        {"chat_template_kwargs": {"arguments": [f"\\u0065 {number}" for number in range(MANY)]}},
        {"tools": tools(*["foo", "top", "cop"] * (MANY // 3))},
        {"documents": ["foo"] * MANY},
    ],
    ids=["one letter", "numbers", "keys", "arguments", "schema", "masked"],
)
def test_they_take_little_time(fields: dict[str, Any]) -> None:
    began = time.process_time()
    result = checked(**fields)
    assert time.process_time() - began < 2.5
    assert result.blocked_by is None
    assert [times for _, times in result.matched.values()] == ([MANY] if "documents" in fields else [])


@pytest.mark.parametrize("text", ["secret", "s\u0435cret", "猎鹰计划", "s\u200becret"])
def test_one_among_them_is_found(text: str) -> None:
    texts = [f"{number}" for number in range(10_000)]
    result = checked(tools=tools(*texts, text, *texts))
    assert (result.blocked_by, result.field) == (RULES[0], "tools")
    assert checked(documents=[*texts, "foo", "foo bar", "x\nfoo"]).fields["documents"][-3:] == ["***", "foo bar", "x\nfoo"]


def test_more_than_can_be_masked_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MAX_IN_QUESTION", 1_000)
    texts = [f"Bob {number}" for number in range(10_000)]
    bob = rule("Bob", name="names", mask=True)
    assert checked(bob, documents=texts[:900]).fields["documents"] == [f"*** {number}" for number in range(900)]
    with pytest.raises(InvalidRequestError, match="more than"):
        checked(bob, documents=texts)
    assert checked(rule("Bob"), documents=texts).blocked_by is not None


ALPHABET = "a\u0430b\u0441中é\u0301\u200b\n\0 "
words = st.text(alphabet="a\u0430b中é", min_size=1, max_size=3)
patterns = st.sampled_from(
    [
        "^a",
        "a$",
        "^a$",
        r"\Aa",
        r"a\z",
        r"(?m)^a$",
        "(?i)^B|a$",
        r"\ba\b",
        r"\Ba",
        "[^a]",
        "a[^b]b",
        "a{1,4}",
        "(?:^a|b)中$",
        "(?s)a.{0,3}b",
    ]
)
any_rules = st.lists(
    st.builds(Rule, st.just("r"), st.just("block"), st.lists(words, max_size=2).map(tuple), st.lists(patterns, max_size=2).map(tuple)),
    min_size=1,
    max_size=2,
)


@given(st.lists(st.text(alphabet=ALPHABET, max_size=6), max_size=8), any_rules)
def test_none_with_a_match_is_left_out(texts: list[str], rules: list[Rule]) -> None:
    matcher = make_matcher(rules)
    if matcher is None:
        return
    with_match = {text for text in texts if passed(text, matcher)[1].blocked_by}
    assert with_match <= in_question(texts, matcher)
