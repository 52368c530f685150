"""Word lists: what is a word, in which script."""

import pytest

from serve_app.content.words import WordMatcher
from tests.serve_app.content.finding import rule, sent


@pytest.mark.parametrize(
    ("word", "text", "passes"),
    [
        ("cat", "A cat.", "A ***."),
        ("cat", "A CAT, a Cat", "A ***, a ***"),
        ("cat", "concatenate cats scat cat_1 cat2", "concatenate cats scat cat_1 cat2"),
        ("cat", "\uff43\uff41\uff54", "***"),
        ("cat", "我的cat很好", "我的***很好"),
        ("straße", "STRASSE", "***"),
        ("café", "cafe\u0301 au lait", "*** au lait"),
        ("cafe\u0301", "café", "***"),
        ("cafe", "café cafe\u0301", "café cafe\u0301"),
        ("top secret", "Top\u00a0Secret, top\nsecret", "***, ***"),
        ("c++", "I write C++, not c", "I write ***, not c"),
        ("赌博", "不要赌博吗", "不要***吗"),
        ("ＡＢ公司", "在ab公司里", "在***里"),
        ("株式会社", "x㍿y", "x***y"),
        ("カ", "ガム", "ガム"),
        ("하", "한국", "한국"),
        ("금지", "금지를", "***를"),
        ("naïve", "NAÏVE", "***"),
    ],
)
def test_words(word: str, text: str, passes: str) -> None:
    assert sent(text, rule(word, mask=True)) == passes


def test_a_word_of_two_rules_is_found_for_both() -> None:
    assert sent("a cat", rule("cat", name="a", mask=True), rule("cat", name="b")) == "a !"


def test_what_may_become_a_longer_word_is_not_settled() -> None:
    matcher = WordMatcher([rule("中", "中文字")])
    assert matcher.scan("中文", 0, is_last=False) == (0, [])
    assert matcher.scan("中文 ", 0, is_last=False).settled == 3


def test_many_words_are_found_at_once() -> None:
    words = [f"word{number}" for number in range(5000)]
    assert sent("say word4711, and word9999", rule(*words, mask=True)) == "say ***, and word9999"
