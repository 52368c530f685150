"""Bodies that would take seconds to read are refused, and long texts are not."""

import time

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.json_bounds import MAX_VALUES, has_too_many_values
from serve_app.modelcache.protocol import NotJsonError, decode
from serve_app.openai.requests import parse_object

MANY = MAX_VALUES + 1
LONGEST = 16 * 1024 * 1024
ATTACKS = {
    "numbers": b'{"x":[' + b"1," * MANY + b"1]}",
    "lists": b'{"x":[' + b"[]," * MANY + b"1]}",
    "objects": b'{"x":[' + b"{}," * MANY + b"1]}",
    "keys": b"{" + b",".join(b'"k%d":1' % number for number in range(MANY)) + b"}",
    "texts": b'{"x":[' + b'"",' * MANY + b'""]}',
    "behind a long text": b'{"y":"' + b"a" * 2_000_000 + b'","x":[' + b"1," * MANY + b"1]}",
}


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS.keys())
def test_too_many_values_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="more than 200000 values"):
        parse_object(body)
    with pytest.raises(NotJsonError):
        decode(body)
    with pytest.raises(NotJsonError):
        decode(body.decode())


HONEST = {
    "a text with commas": b'{"x":"' + b'1,[2],{\\"a\\":3}, ' * 500_000 + b'"}',
    "tokens of a long prompt": b'{"prompt":[' + b"12345," * 150_000 + b"1]}",
    "several texts": b'{"x":["' + b"a,b," * 200_000 + b'","' + b"c,d," * 200_000 + b'"]}',
}


@pytest.mark.parametrize("body", HONEST.values(), ids=HONEST.keys())
def test_long_texts_are_not(body: bytes) -> None:
    assert parse_object(body)


@pytest.mark.parametrize("piece", [b'",', b',\\"', b'"', b"\\", b'\\",', b',"a'], ids=lambda piece: str(piece))
def test_no_body_takes_long_to_look_at(piece: bytes) -> None:
    """Texts that do not end, and signs that are escaped for ever: in time that grows with the length, and not with its square."""
    body = b'{"x":"' + piece * (LONGEST // len(piece))
    began = time.process_time()
    has_too_many_values(body)
    assert time.process_time() - began < 10
