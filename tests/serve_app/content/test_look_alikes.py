"""Words that are written with letters of other scripts."""

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.content.base import LookAlikes, Rule
from serve_app.content.folding import fold
from serve_app.content.look_alikes import looks
from tests.serve_app.content.finding import rule, sent, streamed
from tests.serve_app.content.test_stream import cut

CYRILLIC = "асеорхуітквмнг"
LETTERS = "aаеeoоσoсcрpѕsꜱ🅰iіӀlиnıØ中т1_"


@pytest.mark.parametrize(
    ("word", "text", "passes"),
    [
        ("secret", "a sеcret!", "a ***!"),  # Cyrillic ie
        ("secret", "ѕеcret, sεcret, ѕесrет", "***, ***, ***"),
        ("secret", "SЕCRET SECREТ ЅECRET", "*** *** ***"),
        ("bank", "ΒANK BAΝK ваnk", "*** *** ***"),  # Greek beta, Greek nu, Cyrillic
        ("secret", "ｓｅｃｒｅｔ 𝐬𝐞𝐜𝐫𝐞𝐭 ⓢⓔⓒⓡⓔⓣ ѕｅ𝐜ret", "*** *** *** ***"),
        ("secret", "ꜱᴇᴄʀᴇᴛ 🆂🅴🅲🆁🅴🆃 🅢🅔🅒🅡🅔🅣 sᴇcret", "*** *** *** ***"),
        ("goat", "ɡoat goɑt", "*** ***"),
        ("kill", "kіll kiӀl kІӀl", "*** *** ***"),
        ("ignore", "ignоre lgnоre Ignоre", "*** *** ***"),  # Cyrillic o; l and capital I for i
        ("секрет", "мой cекpет", "мой ***"),  # Latin c and p
        ("СЕКРЕТ", "CЕКРЕТ", "***"),
        ("νίκη", "NΙΚΗ Nίκη", "NΙΚΗ ***"),  # an accent that is left out makes another word
        ("νικη", "NΙΚΗ", "***"),
        ("T恤", "買Т恤吧", "買***吧"),
        ("top secret", "tор\u00a0ѕecret", "***"),
        ("top cop", "a top сор", "a ***"),
        ("café", "cаfé cаfe\u0301 cаfe", "*** *** cаfe"),
        # Nobody is to be blocked for these.
        ("pot", "Закрой рот!", "Закрой рот!"),
        ("рот", "a pot", "a pot"),
        ("pot", "сорос рот. top pоts", "сорос рот. top pоts"),
        ("ox", "ох, не надо", "ох, не надо"),
        ("no", "νο", "νο"),
        ("dan", "ɗan", "ɗan"),
        ("sir", "sır", "sır"),
        ("us", "5 μs", "5 μs"),
        ("ill", "lil", "lil"),
        ("secret", "s3cret", "s3cret"),
        ("a", "🅰 🅰a", "*** 🅰***"),
    ],
)
def test_words(word: str, text: str, passes: str) -> None:
    assert sent(text, rule(word, mask=True)) == passes


@pytest.mark.parametrize("word", ["γουρουνι", "ρην", "ΡΗΝ", "Ρην", "секрет"])
@pytest.mark.parametrize("look_alikes", ["mixed", "all"])
def test_whatever_letters_are_capitals(word: str, look_alikes: LookAlikes) -> None:
    for casing in product(*({char.lower(), char.upper()} for char in word)):
        for pieces in (["".join(casing)], casing):
            passed, _ = streamed(["(", *pieces, ")"], [rule(word, mask=True, look_alikes=look_alikes)])
            assert "".join(passed) == "(***)"


def test_whatever_letters_are_capitals_and_some_only_look_like_the_words() -> None:
    assert sent("γoΥρουνι", rule("γουρουνι", mask=True)) == "***"  # Latin o


def test_what_is_of_one_other_script_counts_if_a_rule_says_so() -> None:
    every = rule("pot", "sir", "ill", mask=True, look_alikes="all")
    assert sent("рот, sır, lil", every) == "***, ***, lil"
    assert sent("a pot", rule("рот", mask=True, look_alikes="all")) == "a ***"
    assert sent("a pot, рот", every, rule("pot", name="strict")) == "a !"


def test_patterns_see_a_text_as_it_is_written() -> None:
    assert sent("sеcret", rule(patterns=["secret"])) == "sеcret"


@given(st.text(alphabet=CYRILLIC, min_size=1, max_size=12))
def test_no_word_of_one_script_is_taken_for_one_of_another(word: str) -> None:
    assert sent(f"({word})", rule(looks(word))) == f"({word})"
    assert sent(f"({looks(word)})", rule(word)) == f"({looks(word)})"


# One Latin letter at least: what is wholly of another script passes.
disguised = st.tuples(*(st.sampled_from([own, *others]) for own, *others in map(list, ("sＳ", "eе𝐞ε", "cс", "rг", "eеЕ", "tТ"))))


@given(
    st.lists(disguised.map("".join) | st.sampled_from(["рот", "㍿", "ﬃ", "中", "é", "ß"]), max_size=8), st.sampled_from([" ", "\u200b, "])
)
def test_what_is_masked_is_the_disguised_word_and_nothing_beside_it(words: list[str], between: str) -> None:
    others = {"рот", "㍿", "ﬃ", "中", "é", "ß"}
    expected = between.join(word if word in others else "***" for word in words)
    assert sent(between.join(words), rule("secret", mask=True)) == expected


texts = st.text(alphabet=LETTERS + "\u0301\u200b ß", max_size=30)
words = st.text(alphabet=LETTERS, min_size=1, max_size=3)
rules = st.lists(
    st.builds(
        Rule,
        st.just("r"),
        st.sampled_from(["block", "mask"]),
        st.lists(words, min_size=1, max_size=3).map(tuple),
        st.just(()),
        st.sampled_from(["mixed", "all"]),
    ),
    min_size=1,
    max_size=3,
)


@given(texts, rules, st.lists(st.integers(0, 30)))
def test_any_cut_gives_the_same_as_the_whole(text: str, rules: list[Rule], places: list[int]) -> None:
    whole, blocked = streamed([text], rules)
    pieces, blocked_too = streamed(cut(text, places), rules)
    assert ("".join(pieces), blocked_too) == ("".join(whole), blocked)


@given(st.text(max_size=20))
def test_a_look_has_a_character_for_each_folded_one(text: str) -> None:
    assert len(looks(text)) == len(fold(text))


def test_it_takes_linear_time() -> None:
    text = "ѕесr" * 100_000
    began = time.process_time()
    assert sent(text, rule("secret", "secrets", mask=True)) == text
    assert time.process_time() - began < 10
