import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.simulated import tokenizer
from deployments.engines.simulated.text import Answer, Limits, compose

# Surrogates cannot arrive: JSON in UTF-8 has none.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \nabcXYZ019"), max_size=60)
turns = st.lists(st.tuples(st.sampled_from(tokenizer.ROLES), texts), max_size=4)
exhaustive = settings(deadline=None)
ROOT = Path(__file__).parent.parent.parent


@exhaustive
@given(texts)
def test_text_survives_a_round_trip(text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.pieces(text) == tokenizer.token_texts(tokens)
    assert all(0 <= token < tokenizer.VOCABULARY_SIZE for token in tokens)


@exhaustive
@given(texts, texts)
def test_appending_text_changes_at_most_the_last_token(text: str, more: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.encode(text + more)[: max(0, len(tokens) - 1)] == tokens[:-1]


@exhaustive
@given(texts, texts)
def test_different_texts_have_different_tokens(one: str, other: str) -> None:
    assert (tokenizer.encode(one) == tokenizer.encode(other)) == (one == other)


@exhaustive
@given(turns, turns, st.integers(1, 40))
def test_a_chat_that_goes_on_extends_its_prompt_and_answer(chat: list[tuple[str, str]], later: list[tuple[str, str]], length: int) -> None:
    prompt = tokenizer.render(chat)
    answer = compose(prompt, Limits(max_tokens=length, natural_max=100))
    text = "".join(answer.pieces)
    following = tokenizer.render([*chat, ("assistant", text), *later])
    assert following[: len(prompt) + length] == [*prompt, *answer.tokens]


def test_english_has_about_four_characters_a_token() -> None:
    text = "The cache tier keeps answers that were computed before, so that the same question costs nothing the second time."
    assert 3 < len(text) / len(tokenizer.encode(text)) < 5


def test_text_cannot_write_a_role() -> None:
    marker = tokenizer.render([])[0]
    assert tokenizer.decode([marker]) == "<|assistant|>"
    assert marker not in tokenizer.encode("<|assistant|>")


@pytest.mark.parametrize("token", [0xD800, 0x1100FF, 0x200000 + 4 * 37**5, 2**29 - 1])
def test_an_id_that_names_nothing_is_a_replacement_character(token: int) -> None:
    assert tokenizer.decode([token]) == "\ufffd"


def words(prompt: list[int], **changes: object) -> str:
    limits = Limits(**{"max_tokens": 30, "natural_max": 20, **changes})  # type: ignore[arg-type]
    return "".join(compose(prompt, limits).pieces)


@exhaustive
@given(st.lists(st.integers(0, 2**29 - 1), min_size=1, max_size=50), st.data())
def test_an_answer_depends_on_every_token_of_the_prompt(prompt: list[int], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(prompt) - 1))
    other = [*prompt]
    other[position] ^= 1
    assert words(prompt) == words([*prompt])
    assert words(prompt, ignore_eos=True, max_tokens=8) != words(other, ignore_eos=True, max_tokens=8)


def test_seed_and_index_change_the_answer() -> None:
    limits = Limits(max_tokens=20, natural_max=20, ignore_eos=True)
    answers = [compose([1], limits, seed=seed, index=index).pieces for seed in (0, 1, -1) for index in (0, 1)]
    assert len({tuple(answer) for answer in answers}) == len(answers)


@exhaustive
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 300), st.booleans(), st.integers(0, 2**20))
def test_lengths(max_tokens: int, natural_max: int, min_tokens: int, ignore_eos: bool, prompt: int) -> None:
    limits = Limits(max_tokens, natural_max, min(min_tokens, max_tokens), ignore_eos)
    answer = compose([prompt], limits)
    assert len(answer.pieces) == len(answer.tokens) <= max_tokens
    assert tokenizer.token_texts(answer.tokens) == list(answer.pieces)
    assert (answer.finish_reason == "length") == (len(answer.tokens) == max_tokens)
    if answer.finish_reason == "stop":
        assert not ignore_eos
        assert limits.min_tokens <= len(answer.tokens) <= max(natural_max, limits.min_tokens)


def test_stop_strings_cut_before_the_first_one_to_be_complete() -> None:
    whole = words([1, 2, 3])
    start = whole.index(" ", 30)
    stop = whole[start + 2 : start + 9]  # across two pieces
    answer = compose([1, 2, 3], Limits(30, 20, stop=("never there", whole[-3:], stop)))
    assert "".join(answer.pieces) == whole[: start + 2]
    assert answer.finish_reason == "stop"
    assert answer.stop_reason == stop
    assert len(answer.pieces) == len(answer.tokens)


def test_stop_strings_inside_the_minimum_length_do_not_count() -> None:
    whole = compose([1, 2, 3], Limits(30, 20))
    stop = whole.pieces[0]
    assert compose([1, 2, 3], Limits(30, 20, min_tokens=1, stop=(stop,))) == whole
    assert compose([1, 2, 3], Limits(30, 20, stop=(stop,))) == Answer([""], whole.tokens[:1], "stop", stop)


def test_answers_are_equal_in_every_process() -> None:
    program = "from deployments.engines.simulated.text import *; print(*compose([7], Limits(20, 20)).tokens)"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert [int(token) for token in other.stdout.split()] == compose([7], Limits(20, 20)).tokens
