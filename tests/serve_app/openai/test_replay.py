"""A rendered answer is the one that would be rendered anew."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.openai import answers
from serve_app.openai.replay import fill, render
from tests.serve_app.openai.test_answers import answers as any_answers
from tests.serve_app.openai.test_answers import to_json


@given(any_answers(), st.booleans(), st.booleans())
def test_every_reply_is_as_if_rendered_anew(answer: dict[str, Any], stream: bool, include_usage: bool) -> None:
    raw = msgspec.json.encode(answer)
    kind = "chat" if answer["object"] == "chat.completion" else "completion"
    pieces = render(raw, kind, stream=stream, include_usage=include_usage)
    for request, created in (("cmpl-1", 7), ("cmpl-2", 1_700_000_000)):
        anew = answers.to_stream(answer, request, created, include_usage) if stream else to_json(answer, request, created)
        assert fill(pieces, request, created) == anew


def test_an_answer_written_with_spaces_is_replayed_too() -> None:
    raw = b' { "object": "chat.completion", "choices": [], "usage": {} }'
    body = fill(render(raw, "chat", stream=False, include_usage=False), "chatcmpl-1", 7)
    assert msgspec.json.decode(body) == {"id": "chatcmpl-1", "created": 7, **msgspec.json.decode(raw)}


@pytest.mark.parametrize("raw", [b"", b"{", b'{"object": "text_completion", "choices": [], "usage": {}}', b'{"choices": []}'])
def test_what_is_no_answer_of_this_kind_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        render(raw, "chat", stream=True, include_usage=True)
