"""Arguments of tool calls, whose strings are what rules see."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.content.base import Rule
from serve_app.content.factory import make_matcher
from serve_app.content.json_text import JsonStream, passed_json
from serve_app.content.stream import passed
from tests.serve_app.content.finding import rule
from tests.serve_app.content.test_stream import cut
from tests.serve_app.content.test_stream import rules as any_rules

RULES = [rule("secret", "赌博", "a b", "🚀"), rule("Bob", name="names", mask=True), rule(name="pattern", patterns=['"k": "v'])]


def streamed(pieces: list[str], rules: list[Rule]) -> tuple[str, Rule | None]:
    matcher = make_matcher(rules)
    assert matcher is not None
    stream = JsonStream(matcher)
    return "".join([*map(stream.feed, pieces), stream.end()]), stream.blocked_by


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('{"a": "secret"}', '{"a": "'),
        ('{"a": "x\\nsecret"}', '{"a": "x\\n'),
        (r'{"a": "\u0073ecre\u0074"}', '{"a": "'),
        (json.dumps({"a": "不要赌博吗"}), r'{"a": "\u4e0d\u8981'),
        (r'"a\tb"', '"'),
        (r'"se\u200bcret, s\u0435cret"', '"'),
        (r'{"\u0073ecret": 1}', '{"'),
        (r'{"k"\u003a "v"}', "{"),
        (r'"\\u0073ecret"', None),  # a backslash, and five characters
        (r'"\\nsecret"', None),
        (r'"\ud83d\ude00 secret"', r'"\ud83d\ude00 '),
        (r'"a\ud83d\ude80b"', '"a'),
        (r'"\ud83dsecret"', r'"\ud83d'),
        ('{"to": "Bob"}', None),  # nothing is masked
        (r'"\x \u12 \\" \u', None),
        ("\\", None),
        (r'"\ud83d', None),
        (r"\ud83d\u", None),
    ],
)
def test_rules_see_what_strings_say_and_what_passes_is_as_it_was_written(text: str, passes: str | None) -> None:
    matcher = make_matcher(RULES)
    assert matcher is not None
    whole, stream = passed_json(text, matcher)
    for sent, blocked in (streamed([text], RULES), streamed(list(text), RULES), (whole, stream.blocked_by)):
        assert (sent, blocked is None) == (text if passes is None else passes, passes is None)


jsons = st.lists(
    st.sampled_from(["a", "b", " ", "中", "文", r"\n", r"\u0061", r"\u4e2d", r"\ud83d", r"\ude00", "\\", r"\\", '"', "u"]), max_size=16
)


@given(jsons.map("".join), any_rules, st.lists(st.integers(0, 60)))
def test_any_cut_gives_the_same_as_the_whole(text: str, rules: list[Rule], places: list[int]) -> None:
    matcher = make_matcher(rules)
    assert matcher is not None
    whole, stream = passed_json(text, matcher)
    assert streamed(cut(text, places), rules) == streamed([text], rules) == (whole, stream.blocked_by)


@given(st.text(alphabet='ab中文é "\\\n😀', max_size=20), any_rules)
def test_it_is_blocked_where_the_string_is(text: str, rules: list[Rule]) -> None:
    matcher = make_matcher(rules)
    assert matcher is not None
    said, of_string = passed(f'"{text}"', matcher, masks=False)
    for is_ascii in (True, False):
        sent, of_json = passed_json(json.dumps(text, ensure_ascii=is_ascii), matcher)
        assert of_json.blocked_by == of_string.blocked_by
        if of_json.blocked_by is None:
            assert json.loads(sent) == text
        else:
            assert json.loads(sent + '"' if len(sent) > 1 else '""') == said[1:] if sent else said == ""


@pytest.mark.parametrize("unit", ["x\\", r"\n"])
@pytest.mark.parametrize("end", ["", " secret"])
def test_it_takes_little_more_time_than_a_text_that_is_no_json(unit: str, end: str) -> None:
    text = unit * 2_000_000 + end
    matcher = make_matcher([rule("secret")])
    assert matcher is not None
    began = time.process_time()
    sent, stream = passed_json(text, matcher)
    assert time.process_time() - began < 2
    assert (sent, stream.blocked_by is not None) == (unit * 2_000_000 + end[:1], bool(end))


def test_streams_take_linear_time() -> None:
    text = r"\u0073ecre" * 50_000
    began = time.process_time()
    assert streamed([text], [rule("secret")]) == (text, None)
    assert time.process_time() - began < 10
