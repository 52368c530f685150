"""A body is not read if what there is in it would hold up everybody else."""

import json

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.json_size import MAX_ITEMS, MAX_PARTS, MAX_TEXTS, is_too_much
from serve_app.modelcache.protocol import NotJsonError, decode
from serve_app.openai.requests import parse_object

MUCH = [b"{},", b"[],", b'"a":1,', b'{"a":1},']


@pytest.mark.parametrize("part", MUCH)
def test_too_many_parts(part: bytes) -> None:
    body = b'{"x":[' + part * MAX_PARTS + b"0]}"
    assert is_too_much(body)
    with pytest.raises(InvalidRequestError, match="more than 200000 objects, lists and fields"):
        parse_object(body)
    with pytest.raises(NotJsonError):
        decode(body)
    with pytest.raises(NotJsonError):
        decode(body.decode())


def test_too_many_values() -> None:
    assert is_too_much(b"[" + b"1," * MAX_ITEMS + b"1,1]")
    assert not is_too_much(b"[" + b"1," * (MAX_ITEMS - 2) + b"1]")
    assert is_too_much(b"[" + b'"a",' * 5 * MAX_TEXTS + b"1]")


@pytest.mark.parametrize("text", ["{}[]:,", '\\"{', '"[', "\\\\", "\\{\n"])
def test_what_texts_have_does_not_count(text: str) -> None:
    body = json.dumps({"model": "m", "prompt": text * 500_000, "more": [1, text]}).encode()
    assert not is_too_much(body)
    assert parse_object(body)["more"] == [1, text]


def test_a_text_without_an_end_is_looked_at_once() -> None:
    assert not is_too_much(b'{"x":"' + b'\\"{' * 1_000_000)
