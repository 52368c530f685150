"""One contract, on every embedder; then what each promises of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.embedders.base import Embedder
from cache.embedders.bert import BertEmbedder
from cache.embedders.factory import load_embedder
from cache.embedders.fake import HashedWordsEmbedder
from cache.embedders.pieces import MAX_AT_ONCE_CHARS, MAX_PIECE_CHARS, first_tokens, pieces
from cache.embedders.sentence import SentenceEmbedder
from cache.embedders.sources import PACKAGED, locate
from cache.errors import EmbedderError
from tests.cache.wordings import CELL, FORGOT, ODD_TEXTS, RESET, TEXTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["fake", "real", "bert", "int8"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "fake":
        return HashedWordsEmbedder()
    loaded: Embedder = request.getfixturevalue(request.param)
    return loaded


def cosine(embedder: Embedder, first: str, second: str) -> float:
    one, other = embedder.embed([first, second])
    return float(one @ other)


def test_vectors_are_unit_float32_one_for_each_text(embedder: Embedder) -> None:
    texts = TEXTS + ODD_TEXTS
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)
    assert embedder.embed([]).dtype == np.float32
    assert embedder.count_tokens([]) == []


@pytest.mark.parametrize("text", ["", " ", "\n\t", "?!"])
def test_a_text_without_words_has_a_unit_vector_too(embedder: Embedder, text: str) -> None:
    vector = embedder.embed([text])[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(vector, embedder.embed([text])[0], atol=1e-6)


def test_a_vector_depends_on_its_text_only_and_stands_in_the_texts_order(embedder: Embedder) -> None:
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(embedder.embed(tuple(reversed(texts))), together[::-1], atol=2e-6)


def test_equal_texts_are_equal_and_others_are_not(embedder: Embedder) -> None:
    assert cosine(embedder, RESET, RESET) == pytest.approx(1, abs=1e-5)
    assert cosine(embedder, RESET, FORGOT) < 0.99


def test_tokens_are_counted_beyond_what_the_model_reads(embedder: Embedder) -> None:
    assert embedder.count_tokens(["", "cat", "the cat sat", "word " * 5_000]) == [0, 1, 3, 5_000]


@pytest.fixture(params=["real", "bert"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Embedder, list[int]]:
    """An embedder, and how many characters its tokenizer is given in each call from now on."""
    embedder: Any = request.getfixturevalue(request.param)
    chars: list[int] = []

    def noting(tokenize: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            chars.append(sum(len(text) for arg in args if isinstance(arg, list) for text in arg))
            return tokenize(*args, **options)

        return noted

    if request.param == "bert":
        monkeypatch.setattr(embedder, "_tokenizer", SimpleNamespace(encode_batch=noting(embedder._tokenizer.encode_batch)))
    else:
        kind = type(embedder._model.tokenizer)
        monkeypatch.setattr(kind, "__call__", noting(kind.__call__))
    return embedder, chars


@pytest.mark.parametrize("text", ["word " * 200_000, "?!" * 300_000, "缓存" * 200_000, "\n" * 500_000])
def test_the_tokenizer_never_gets_a_long_text_at_once(watched: tuple[Embedder, list[int]], text: str) -> None:
    embedder, chars = watched
    embedder.embed([text])
    assert embedder.covers([text]) == [not text.strip()]
    if text.strip():
        assert sum(chars) < 100_000  # no more than what can be read
    assert embedder.count_tokens([text]) == [len(text.strip()) if "word" not in text else 200_000]
    assert max(chars) <= MAX_AT_ONCE_CHARS


def test_the_tokenizer_never_gets_many_texts_at_once(watched: tuple[Embedder, list[int]]) -> None:
    embedder, chars = watched
    texts = ["some words here " * 1_000] * 30
    embedder.covers(texts)
    assert embedder.count_tokens(texts) == [3_000] * 30
    assert max(chars) <= MAX_AT_ONCE_CHARS


LONG = {
    "words": "The quick brown fox isn't lazy: 3.14 (or so)... " * 2_000,
    "code": "".join(f"{' ' * (number % 90)}if (a[{number}]) {{\n" for number in range(3_000)),
    "Chinese": "今天天气怎么样？我想重置密码。" * 2_000,  # noqa: RUF001
    "marks": "-[MASK]" * 5_000,
    "controls": "ca\x1cch\x85e\u200b it\x0b " * 5_000,
    "gaps": ("word" + " " * 9_000 + "\n") * 20,
    "accents": "nai\u0308ve cafe\u0301 " * 4_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_in_pieces_a_long_text_has_the_tokens_that_it_has_as_a_whole(bert: BertEmbedder, real: SentenceEmbedder, text: str) -> None:
    whole = bert._tokenizer.encode(text, add_special_tokens=False).ids
    assert first_tokens([text], bert._encode, len(whole)) == [whole]
    assert bert.count_tokens([text, "a cat"]) == real.count_tokens([text, "a cat"]) == [len(whole), 2]
    np.testing.assert_allclose(bert.embed([text, "a cat"]), real.embed([text, "a cat"]), atol=2e-6)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["word", " ", "\n", "。", "-", "[", "缓", "x" * 9_000, " " * 9_000, "ab cd " * 1_500]), max_size=12))
def test_pieces_join_to_the_text_and_none_is_long(parts: list[str]) -> None:
    text = "".join(parts)
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(0 < len(piece) <= MAX_PIECE_CHARS for piece in cut)


def test_words_that_stand_far_apart_are_read(embedder: Embedder) -> None:
    far, near = "a cat" + " " * 2 * MAX_PIECE_CHARS + "sat", "a cat sat"
    np.testing.assert_allclose(embedder.embed([far]), embedder.embed([near]), atol=2e-6)
    assert embedder.covers([far]) == [True]


def test_a_text_is_covered_up_to_the_longest(real: SentenceEmbedder) -> None:
    fits = " ".join(["word"] * real.max_tokens)
    assert real.count_tokens([fits]) == [real.max_tokens]
    assert real.covers([fits, f"{fits} word"]) == [True, False]


def test_the_name_is_the_same_every_time_and_tells_embedders_apart(embedder: Embedder) -> None:
    assert embedder.name == embedder.name
    assert "@" in embedder.name


def test_threads_may_share_an_embedder(embedder: Embedder) -> None:
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 4)]
    expected = embedder.embed(texts)

    def work(number: int) -> None:
        np.testing.assert_allclose(embedder.embed([texts[number]])[0], expected[number], atol=2e-6)
        assert embedder.count_tokens(["word " * 1_000]) == [1_000]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(len(texts))))


def test_hashed_words_compare_words_and_not_their_order_or_case() -> None:
    fake = HashedWordsEmbedder()
    assert cosine(fake, "The cat sat", "sat THE cat") == pytest.approx(1, abs=1e-6)
    assert cosine(fake, "one two three four", "one two three five") == pytest.approx(0.75, abs=0.1)
    assert cosine(fake, "alpha beta gamma", "delta epsilon zeta") == pytest.approx(0, abs=0.25)
    np.testing.assert_array_equal(fake.embed(["", "?!"])[0], fake.embed([" "])[0])


def test_hashed_words_are_the_same_in_every_process() -> None:
    code = "from cache.embedders.fake import HashedWordsEmbedder; print(HashedWordsEmbedder().embed(['some words']).tobytes().hex())"
    outputs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        outputs.add(subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True).stdout)
    assert outputs == {HashedWordsEmbedder().embed(["some words"]).tobytes().hex().encode() + b"\n"}


def test_a_paraphrase_is_near_and_another_subject_far(real: SentenceEmbedder) -> None:
    assert cosine(real, RESET, FORGOT) > 0.85
    for other in (CELL, "What is the capital of Peru?", "def f(x): return x"):
        assert cosine(real, RESET, other) < 0.4


def test_the_packaged_model_is_named_by_source_and_content(real: SentenceEmbedder) -> None:
    source, _, revision = real.name.partition("@")
    assert source == PACKAGED
    assert len(revision) == 12
    assert real.dimension == 384


def test_what_the_model_cuts_off_or_does_not_know_is_not_covered(real: SentenceEmbedder) -> None:
    texts = [RESET, "word " * 254, "word " * 255, "What does \U0001f600 mean?", ""]
    assert real.covers(texts) == [True, True, False, False, True]


def test_a_text_that_utf8_cannot_express_is_refused(real: SentenceEmbedder) -> None:
    with pytest.raises(EmbedderError):
        real.embed(["\ud800"])
    with pytest.raises(EmbedderError):
        real.count_tokens(["\ud800"])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packaged model in a directory of its own."""
    return Path(shutil.copytree(locate(PACKAGED), tmp_path / "model"))


def test_a_directory_is_a_source_and_other_files_make_another_name(real: SentenceEmbedder, copy: Path) -> None:
    first = load_embedder(str(copy))
    np.testing.assert_allclose(first.embed([RESET]), real.embed([RESET]), atol=1e-6)
    config = copy / "sentence_bert_config.json"
    config.write_text(config.read_text().replace("256", "128"))
    assert load_embedder(str(copy)).name != first.name


@pytest.mark.parametrize("source", ["/no/such/directory", "./nowhere", "no-such-owner/no-such-model", "a b"])
def test_a_model_that_is_not_there_says_what_to_do(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EmbedderError, match=r"give a hub id|give its directory"):
        load_embedder(source)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_is_an_embedder_error(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"{damaged")
    with pytest.raises(EmbedderError, match="could not be loaded"):
        load_embedder(str(copy))


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after running this code."""
    report = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code + report]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


def test_heavy_packages_are_imported_only_when_chosen() -> None:
    heavy = {"torch", "faiss", "transformers", "sentence_transformers", "sklearn", "pandas", "ray", "vllm"}
    light = "import cache.semantic, cache.exact, cache.keys, cache.stores.sql, cache.vectors.faiss_index, cache.embedders.sentence"
    fake = "; from cache.embedders.factory import load_embedder; load_embedder('fake').embed(['a'])"
    assert imported_by(light + fake) & heavy == set()
    index = "from cache.vectors.faiss_index import FaissIndex; FaissIndex(2)"
    assert imported_by(index) & heavy == {"faiss"}
