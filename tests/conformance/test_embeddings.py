"""POST /v1/embeddings."""

import base64
import math
import struct
from typing import Any

import pytest

from tests.conformance.conftest import ENCODER, Post
from tests.conformance.shapes import embedding_answer, error_of
from tests.e2e.system import System

INPUTS: list[tuple[str, Any, int]] = [
    ("text", "A cat sat on the mat.", 1),
    ("list of one", ["A cat sat on the mat."], 1),
    ("list of three", ["A cat.", "A dog.", "A cat."], 3),
    ("text beyond ASCII", "猫坐在垫子上。\U0001f642", 1),
    ("one letter", "a", 1),
    ("a text longer than the encoder reads", "cat " * 3000, 1),
    ("a hundred texts", [f"Cat number {number}." for number in range(100)], 100),
]


@pytest.mark.parametrize(("given", "number"), [each[1:] for each in INPUTS], ids=[name for name, *_ in INPUTS])
def test_inputs(embed: Post, given: Any, number: int) -> None:
    body = embedding_answer(embed(input=given))
    assert len(body["data"]) == number
    assert body["model"] == ENCODER
    for each in body["data"]:
        assert math.isclose(sum(value * value for value in each["embedding"]), 1, abs_tol=1e-3)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0


def test_order_is_that_of_the_input(embed: Post) -> None:
    texts = ["The moon is far away.", "Green tea is brewed at 80 degrees.", "A cache keeps answers."]
    together = [each["embedding"] for each in embedding_answer(embed(input=texts))["data"]]
    for text, vector in zip(texts, together, strict=True):
        alone = embedding_answer(embed(input=text))["data"][0]["embedding"]
        assert sum(a * b for a, b in zip(alone, vector, strict=True)) > 0.99


def test_base64_is_the_same_as_floats_of_four_bytes(embed: Post) -> None:
    floats = embedding_answer(embed(encoding_format="float"))["data"][0]["embedding"]
    text = embedding_answer(embed(encoding_format="base64"), is_base64=True)["data"][0]["embedding"]
    raw = base64.b64decode(text, validate=True)
    assert struct.unpack(f"<{len(floats)}f", raw) == pytest.approx(floats, abs=1e-6)


def test_dimensions_that_the_model_has(embed: Post) -> None:
    own = len(embedding_answer(embed())["data"][0]["embedding"])
    assert len(embedding_answer(embed(dimensions=own))["data"][0]["embedding"]) == own


def test_usage_grows_with_the_input(embed: Post) -> None:
    one, three = (embedding_answer(embed(input=["A cat sat."] * number))["usage"]["prompt_tokens"] for number in (1, 3))
    assert three == 3 * one


def test_a_user_may_be_named(embed: Post) -> None:
    embedding_answer(embed(user="someone"))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("input missing", {"input": None}, "input"),
    ("input empty", {"input": ""}, "input"),
    ("no inputs", {"input": []}, "input"),
    ("an empty one among others", {"input": ["a", ""]}, "input"),
    ("more than 2048", {"input": ["a"] * 2049}, "input"),
    ("input number", {"input": 7}, "input"),
    ("input object", {"input": {"text": "a"}}, "input"),
    ("tokens", {"input": [1, 2, 3]}, "input"),
    ("lists of tokens", {"input": [[1, 2, 3]]}, "input"),
    ("model missing", {"model": None}, "model"),
    ("encoding_format hex", {"encoding_format": "hex"}, "encoding_format"),
    ("dimensions 0", {"dimensions": 0}, "dimensions"),
    ("dimensions 7", {"dimensions": 7}, "dimensions"),
    ("dimensions text", {"dimensions": "384"}, "dimensions"),
    ("user number", {"user": 7}, "user"),
]


@pytest.mark.parametrize(("fields", "param"), [each[1:] for each in REFUSED], ids=[name for name, *_ in REFUSED])
def test_refused(embed: Post, fields: dict[str, Any], param: str) -> None:
    error = error_of(embed(**fields), 400, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("which", ["unknown", "chat model"])
def test_a_model_that_makes_no_embeddings(embed: Post, system: System, which: str) -> None:
    error_of(embed(model="none" if which == "unknown" else system.model), 404, "model", "model_not_found")
