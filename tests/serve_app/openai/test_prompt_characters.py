"""About how long a prompt is, whatever shape it has."""

from typing import Any

import msgspec
import pytest

from serve_app.openai.requests import parse_chat, parse_completion


def chat(content: Any, **fields: Any) -> int:
    return parse_chat(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": content}], **fields})).prompt_characters


def completion(prompt: Any, **fields: Any) -> int:
    return parse_completion(msgspec.json.encode({"model": "m", "prompt": prompt, **fields})).prompt_characters


@pytest.mark.parametrize(
    ("content", "characters"),
    [
        ("hello", 5),
        ("", 0),
        ([{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}], 5),
        ([{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "x"}}], 0),
    ],
)
def test_chats(content: Any, characters: int) -> None:
    assert chat(content) == characters


def test_tools_are_part_of_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 1000}}]
    assert chat("hello", tools=tools) > 1000


@pytest.mark.parametrize(
    ("prompt", "characters"),
    [("hello", 5), (["hello"], 5), (["hello", "you"], 0), ([1, 2, 3], 12), ([[1, 2, 3]], 12), ([[1], [2]], 0)],
)
def test_completions(prompt: Any, characters: int) -> None:
    assert completion(prompt) == characters


def test_what_the_engine_computes_anew_is_not_predicted() -> None:
    assert chat("hello", prompt_logprobs=1) == 0
    assert completion("hello", echo=True, logprobs=1) == 0
    assert completion("hello", echo=True) == completion("hello", logprobs=1) == 5
