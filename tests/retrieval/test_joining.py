"""Joined tokens are the tokens of the joined text, for tokenizers that cut texts into words in the ways that models have."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from cache.prefix.keys import Tokens
from deployments.demo_model import MODEL_DIR
from deployments.engines.simulated.tokenizer import encode
from retrieval.documents import Chunk, SearchHit
from retrieval.joining import BRACKET, mark, separated, split, without_bracket
from retrieval.prompt import blocks, ranking

Encode = Callable[[str], list[int]]

# What the tokenizers of GPT-2, Llama 3 and Qwen 2 take for words.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = [
    "[k7f3qz]\nThe cache keeps answers.\n\n[abcdef]\n",
    "Documents above, most relevant first: [k7f3qz].\n\nWhy?\n\n",
    "  \n\n\n[[\n]]..\n\n",
] * 20
MARK = mark("222222222222")


def byte_level(words: str) -> Encode:
    """Byte-level BPE over these words, with merges across everything that the words allow."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, min_frequency=1, show_progress=False)
    )
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def demo() -> Encode:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


TOKENIZERS: dict[str, Encode] = {
    "gpt2": byte_level(GPT2),
    "llama3": byte_level(LLAMA3),
    "qwen2": byte_level(QWEN2),
    "simulated": encode,
    "demo": demo(),
}


def array(tokens: list[int]) -> Tokens:
    return np.array(tokens, np.uint32)


def block_tokens(tokenize: Encode, block: str) -> Tokens:
    alone = without_bracket(array(tokenize(block + BRACKET)), array(tokenize(BRACKET)))
    assert alone is not None
    return alone


VISIBLE = st.text(min_size=1, max_size=40).filter(str.strip)
LINES = VISIBLE | st.sampled_from(
    ["a.\n\n\n", "\n\n[", "x \u00a0", "\u200b", "\r\n\r\ny", "[[", "]\n", "!!\n", "\u3000z\u3000", "<|user|>"]
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(texts=st.lists(LINES.filter(str.strip), min_size=1, max_size=4), question=st.text(max_size=20), chance=st.randoms())
def test_blocks_can_be_joined_in_any_order(name: str, texts: list[str], question: str, chance: object) -> None:
    tokenize = TOKENIZERS[name]
    hits = [SearchHit(Chunk(f"d{number}", 0, text), -number) for number, text in enumerate(texts)]
    head, tail = "<|user|>\n", f"{ranking(hits)}\n{question}"
    frame = array(tokenize(head + MARK + tail))
    ends = split(frame, block_tokens(tokenize, MARK))
    assert ends is not None
    made = blocks(hits)
    known = [block_tokens(tokenize, block) for block in made]
    for order in (list(range(len(hits))), list(reversed(range(len(hits)))), chance.sample(range(len(hits)), len(hits))):  # type: ignore[attr-defined]
        joined = np.concatenate([ends[0], *(known[hit] for hit in order), ends[1]])
        assert joined.tolist() == tokenize(head + "".join(made[hit] for hit in order) + tail)


def test_a_mark_that_is_not_there_or_twice_splits_nothing() -> None:
    prompt = array([1, 2, 3, 1, 2, 4])
    assert split(prompt, array([1, 2])) is None
    assert split(prompt, array([5])) is None
    assert split(prompt, array([])) is None
    assert split(prompt, array([0] * 7)) is None
    found = split(prompt, array([2, 3]))
    assert found is not None
    assert [part.tolist() for part in found] == [[1], [1, 2, 4]]


def test_a_bracket_that_has_grown_into_the_text_is_noticed() -> None:
    assert without_bracket(array([7, 8]), array([9])) is None
    assert without_bracket(array([]), array([9])) is None


def test_lists_are_separated() -> None:
    assert [part.tolist() for part in separated(array([2, 0, 1, 7, 8, 9]), 3)] == [[7, 8], [], [9]]


@pytest.mark.parametrize("numbers", [[], [3, 1, 7], [1, 7, 8]])
def test_what_is_not_so_many_lists_is_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="texts"):
        separated(array(numbers), max(len(numbers), 1) if not numbers else 2 if numbers[0] == 3 else 1)
