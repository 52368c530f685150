import re
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.chunking import MAX_COUNTED_CHARS, CountTokens, split, unmarked
from retrieval.errors import DocumentError

PIECES = st.sampled_from(["word", "a", "reuse.", "Why?", " ", "\n", "\n\n", "缓存", "。", "，", "x" * 90, "3.14", "\t", "é", "\u200b"])  # noqa: RUF001
TEXTS = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=200)


def words_and_characters(texts: Sequence[str]) -> list[int]:
    """Like WordPiece: an English word is one token, a Chinese character another."""
    return [len(re.findall(r"[a-zA-Z0-9]+|[^\sa-zA-Z0-9]", text)) for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def squares(texts: Sequence[str]) -> list[int]:
    """Counts that do not add up: a joined text has many more tokens than its parts."""
    return [len(text) ** 2 for text in texts]


def bare(text: str) -> str:
    return "".join(text.split())


@settings(deadline=None)
@given(TEXTS, st.sampled_from([words_and_characters, characters, squares]), st.integers(1, 30), st.data())
def test_chunks_fit_and_hold_every_character(text: str, count: CountTokens, max_tokens: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, max_tokens // 2))
    chunks = split(text, count, max_tokens, overlap)
    assert all(tokens <= max_tokens for tokens in count(chunks))
    assert all(chunk == chunk.strip() != "" for chunk in chunks)
    assert missing(text, chunks) is None


def missing(text: str, chunks: Sequence[str]) -> int | None:
    """Where the first character of the text is that no chunk holds: each chunk lies in the text, no further than the last one's end."""
    whole, covered = bare(text), 0
    for chunk in chunks:
        places = [match.start() for match in re.finditer(f"(?={re.escape(bare(chunk))})", whole[: covered + len(bare(chunk))])]
        if not places:
            return covered
        covered = max(covered, places[-1] + len(bare(chunk)))
    return None if covered == len(whole) else covered


@settings(deadline=None)
@given(st.lists(st.sampled_from(["one", "two.", "three,", "four\n\n"]), min_size=1, max_size=80), st.integers(2, 12), st.data())
def test_neighbours_share_words_up_to_the_overlap(words: list[str], max_tokens: int, data: st.DataObject) -> None:
    numbered = [f"{i}{word}" for i, word in enumerate(words)]
    overlap = data.draw(st.integers(1, max_tokens // 2))
    chunks = [chunk.split() for chunk in split(" ".join(numbered), lambda texts: [len(t.split()) for t in texts], max_tokens, overlap)]
    for left, right in pairwise(chunks):
        assert 1 <= len(set(left) & set(right)) <= overlap
        assert set(right) - set(left)


def test_without_overlap_nothing_is_repeated() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    assert " ".join(split(text, words_and_characters, 7, 0)) == text


def test_ends_at_the_strongest_boundary_in_the_second_half() -> None:
    assert split("One two three four. Five six seven", words_and_characters, 7, 0) == ["One two three four.", "Five six seven"]
    assert split("a b c.\n\nd e. f g h i", words_and_characters, 8, 0) == ["a b c.", "d e. f g h i"]


def test_chinese_ends_at_its_punctuation() -> None:
    assert split("缓存很有用。前缀也一样。", words_and_characters, 8, 0) == ["缓存很有用。", "前缀也一样。"]


def test_giant_word_is_cut_even_if_the_encoder_calls_it_one_token() -> None:
    blob = "QUJD" * 5000
    chunks = split(blob, words_and_characters, 16, 0)
    assert "".join(chunks) == blob
    assert max(map(len, chunks)) <= 16 * 16


def test_text_is_measured_a_few_times_over_whatever_its_length() -> None:
    measured = {}
    for words in (1_000, 10_000):
        sizes: list[int] = []

        def count(texts: Sequence[str], sizes: list[int] = sizes) -> list[int]:
            sizes.append(sum(map(len, texts)))
            return words_and_characters(texts)

        text = " ".join(f"word{i}" for i in range(words))
        split(text, count, 200, 30)
        assert len(sizes) <= 3
        measured[words] = sum(sizes) / len(text)
    assert max(measured.values()) < 3


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_no_text_has_no_chunks(text: str) -> None:
    assert split(text, words_and_characters, 16, 0) == []


def test_character_longer_than_a_chunk_is_refused() -> None:
    with pytest.raises(DocumentError):
        split("ab", lambda texts: [5 * len(text) for text in texts], 4, 0)


@pytest.mark.parametrize(("max_tokens", "overlap"), [(0, 0), (4, 3), (4, -1)])
def test_impossible_sizes_are_refused(max_tokens: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        split("text", words_and_characters, max_tokens, overlap)


def test_a_text_of_tiny_words_takes_little_memory() -> None:
    words = 200_000
    tracemalloc.start()
    try:
        assert len(split("x " * words, lambda texts: [1] * len(texts), 2000, 0)) == words / 2000
        assert tracemalloc.get_traced_memory()[1] < 90 * words
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["!" * 1_000_000, " ".join("!" * 300 + str(i) for i in range(3000))])
def test_no_encoder_is_asked_for_the_tokens_of_a_long_text_at_once(text: str) -> None:
    asked: list[int] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.append(sum(map(len, texts)))
        return characters(texts)

    chunks = split(text, count, 200, 30)
    assert max(asked) <= MAX_COUNTED_CHARS
    assert max(map(len, chunks)) <= 200
    assert bare("".join(split(text, count, 200, 0))) == bare(text)


def test_pages_that_share_a_chunk_do_not_share_a_word() -> None:
    pages = "It ends with honey\fBees begin.\n\f\n# Third \f\fpage"
    assert split(pages, words_and_characters, 50, 5) == ["It ends with honey\nBees begin.\n\n# Third page"]
    assert unmarked(pages) == "It ends with honey\nBees begin.\n\n# Third page"
