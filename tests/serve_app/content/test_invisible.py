"""Words that are hidden from rules by characters that nobody sees."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.content.base import Rule
from serve_app.content.invisible import last_visible, visible
from tests.serve_app.content.finding import rule, sent, streamed
from tests.serve_app.content.test_stream import cut
from tests.serve_app.content.test_stream import rules as any_rules

HIDERS = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\ufe0f", "\u2063", "\U000e0041", "\u202e", "\u3164"]


@pytest.mark.parametrize("hider", HIDERS, ids=lambda each: f"U+{ord(each):04X}")
def test_a_word_is_found_whatever_hides_in_it(hider: str) -> None:
    hidden = hider.join("secret")
    assert sent(f"a {hidden} b", rule("secret", mask=True)) == "a *** b"
    assert sent(f"a {hidden} b", rule("secret")) == "a !"
    assert sent(f"a {hidden} b", rule(patterns=["s.{4}t"], mask=True)) == "a *** b"
    assert sent(f"赌{hider}博", rule("赌博", mask=True)) == "***"
    assert sent(f"{hider}secret{hider}", rule("secret", mask=True)) == f"{hider}***{hider}"
    assert sent(f"un{hider}secret", rule("secret", mask=True)) == f"un{hider}secret"  # no word of its own
    assert sent("a secret", rule(hidden, mask=True)) == "a ***"


@pytest.mark.parametrize("text", ["no match: \u200bhere\u200b", "👩\u200d💻 and ❤\ufe0f", "\u0645\u06cc\u200c\u062e\u0648", "\u200b" * 50])
def test_what_is_no_match_passes_as_it_was(text: str) -> None:
    assert sent(text, rule("secret"), rule(patterns=["x{1,3}y"], mask=True)) == text


hiding = st.text(alphabet="aabbc 中é\u0301.\u200b\u200b\ufe0f", max_size=30)


@given(hiding, any_rules, st.lists(st.integers(0, 30)))
def test_any_cut_gives_the_same_as_the_whole(text: str, rules: list[Rule], places: list[int]) -> None:
    whole, blocked = streamed([text], rules)
    pieces, blocked_too = streamed(cut(text, places), rules)
    assert ("".join(pieces), blocked_too) == ("".join(whole), blocked)


@given(hiding, any_rules)
def test_what_is_seen_of_a_text_passes_as_it_does_alone(text: str, rules: list[Rule]) -> None:
    assert visible(sent(text, *rules)) == sent(visible(text), *rules)


def test_however_many_hide_it_takes_linear_time_and_they_do_not_wait_for_ever() -> None:
    rules = [rule("secret", mask=True), rule(patterns=["s.{1,500}t"])]
    began = time.process_time()
    pieces, _ = streamed(["sec" + "\u200b" * 1_000_000, "ret"], rules)
    assert time.process_time() - began < 20
    assert len(pieces[0]) > 900_000


def test_the_characters_are_unicodes() -> None:
    """Those of its category for formats that are not for the eye; the rest of the property are fillers, selectors and unassigned ones."""
    formats = [chr(code) for code in range(0x11_0000) if unicodedata.category(chr(code)) == "Cf"]
    shown = {char for char in formats if visible(char)}
    signs = ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "INTERLINEAR")
    assert [char for char in shown if not unicodedata.name(char).startswith(signs)] == []
    assert last_visible("a\u200b\u200b", 3) == "a"
    assert (last_visible("\u200b", 1), last_visible("", 0), last_visible("ab", 1)) == ("", "", "a")
