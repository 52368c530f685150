"""Names of marks: two that are equal are of one beginning, whatever a template makes of a request's fields."""

import ast
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.anthropic.requests import parse_message
from serve_app.contexts.asked import Mark
from serve_app.contexts.beginnings import NOT_IN_PROMPTS, has_media, named
from serve_app.openai.requests import CacheOptions, Generation, Retrieved

RENDERED = (
    "add_generation_prompt", "cache_salt", "chat_template", "chat_template_kwargs", "documents", "functions", "mm_processor_kwargs",
    "parallel_tool_calls", "reasoning_effort", "response_format", "retrieval", "thinking", "tool_choice", "tools", "of a later engine",
)  # fmt: skip
SAMPLED = ("max_tokens", "metadata", "n", "seed", "stop", "stream", "temperature", "top_p", "user")
TEXTS = st.sampled_from(["", "a", "b", "ab", '"', "\u2028"])
VALUES = st.sampled_from([None, False, 0, 1, 1.0, "", "1", "a", [], [1], {}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}])
CONTENTS = TEXTS | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), min_size=1, max_size=3)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": CONTENTS}), min_size=1, max_size=3)
FIELDS = st.dictionaries(st.sampled_from(RENDERED + SAMPLED), VALUES, max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Generation, str]:
    """One with a mark, and whose it is."""
    messages, fields = draw(MESSAGES), draw(FIELDS)
    at = draw(st.integers(0, len(messages) - 1))
    content = messages[at]["content"]
    part = draw(st.none() | st.integers(0, len(content) - 1)) if isinstance(content, list) else None
    model = draw(st.sampled_from(["m", "adapter"]))
    body = {**fields, "model": model, "messages": messages}
    request = Generation("chat", body, model, False, False, CacheOptions(), None, None, marks=(Mark("messages", at, part, 300),))
    if draw(st.booleans()):
        with_documents = [*messages[:-1], {"role": "user", "content": "[1] A document."}]
        found = Retrieved(messages, (), draw(st.sampled_from(["ada", "group"])))
        request = replace(request, body={**body, "messages": with_documents}, retrieved=found)
    return request, draw(st.sampled_from(["ada", "bob"]))


def beginning(request: Generation, namespace: str) -> str:
    """Of all that a template could be given, what comes before the mark's end; and whose KV it is."""
    (mark,) = request.marks
    messages = request.retrieved.messages if request.retrieved else request.body["messages"]
    last = messages[mark.message]
    if mark.part is not None:
        last = {**last, "content": last["content"][: mark.part + 1]}
    fields = {name: json.dumps(value) for name, value in request.body.items() if name in (*RENDERED, "model")}
    salt = request.retrieved.scope if request.retrieved else namespace
    return json.dumps([namespace, salt, sorted(fields.items()), messages[: mark.message], last])


@given(requests(), requests(), st.data())
def test_names_are_equal_where_beginnings_are(one: tuple[Generation, str], other: tuple[Generation, str], data: st.DataObject) -> None:
    request, namespace = one
    body = other[0].body
    taken = data.draw(st.lists(st.sampled_from(sorted(body.keys() - {"messages"})), unique=True))
    mixed = replace(request, body={**request.body, **{name: body[name] for name in taken}})  # alike in all but a few fields
    for second in (other, (mixed, namespace), (request, other[1]), (replace(request, retrieved=other[0].retrieved), namespace)):
        if second[0].retrieved and len(second[0].retrieved.messages) <= second[0].marks[0].message:
            continue
        if second[0].marks[0].part is not None and not parts_of(second[0]):
            continue
        is_equal = named(*one)[0].name == named(*second)[0].name
        assert is_equal == (beginning(*one) == beginning(*second))


def parts_of(request: Generation) -> bool:
    messages = request.retrieved.messages if request.retrieved else request.body["messages"]
    return isinstance(messages[request.marks[0].message]["content"], list)


@given(st.text(min_size=1).filter(lambda name: name not in NOT_IN_PROMPTS | {"messages"}), VALUES, VALUES)
def test_any_field_that_is_not_known_to_be_without_meaning_counts(field: str, one: Any, other: Any) -> None:
    names = [named(marked_chat(**{field: value}), "ada")[0].name for value in (one, other)]
    assert (names[0] == names[1]) == (json.dumps(one) == json.dumps(other))


def marked_chat(**fields: Any) -> Generation:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], **fields}
    return Generation("chat", body, "m", False, False, CacheOptions(), None, None, marks=(Mark("messages", 0, None, 300),))


def test_what_engines_make_prompts_of_is_part_of_names() -> None:
    """By vLLM's own source: what it renders and tokenizes with."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    source = Path(found.origin).parent / "entrypoints/openai/chat_completion/protocol.py"
    builders = [
        each
        for each in ast.walk(ast.parse(source.read_text()))
        if isinstance(each, ast.FunctionDef) and each.name in ("build_chat_params", "build_tok_params")
    ]
    used = {
        each.attr
        for builder in builders
        for each in ast.walk(builder)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self"
    }
    assert {"chat_template_kwargs", "documents", "truncate_prompt_tokens"} <= used
    assert used & NOT_IN_PROMPTS == {"max_completion_tokens", "max_tokens"}  # for prompts that are cut off: see the next test


def test_of_a_prompt_that_is_cut_off_all_counts() -> None:
    def name(**fields: Any) -> bytes:
        messages = [{"role": "user", "content": "a"}, {"role": "user", "content": fields.pop("last", "b")}]
        return named(marked_chat(**{"messages": messages, **fields}), "ada")[0].name

    assert name() == name(max_tokens=3) == name(last="c")
    assert len({name(truncate_prompt_tokens=5, **more) for more in ({}, {"max_tokens": 3}, {"last": "c"})}) == 3


def test_marks_of_one_request_have_names_of_their_own() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    body = {
        "model": "m",
        "max_tokens": 1,
        "tools": [{"name": "find", "input_schema": {}, **mark}],
        "system": [{"type": "text", "text": "a", **mark}, {"type": "text", "text": "b"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "c", **mark}]}],
    }
    marks = named(parse_message(json.dumps(body).encode()), "ada")
    assert len({mark.name for mark in marks}) == 3


@pytest.mark.parametrize(
    ("value", "has"),
    [
        ([], False),
        ([{"role": "user", "content": None}], False),
        ([{"role": "user", "content": "text"}], False),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}], False),
        ([{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "a"}]}]}], False),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], True),
        ([{"role": "user", "content": [{"image_url": "data:,"}]}], True),
        ([{"role": "user", "content": [{"type": ["text"], "text": "a"}]}], True),
        ([{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image", "source": {}}]}]}], True),
        ([{"role": "user", "content": [{"type": "image_url", "role": "user", "image_url": {"url": "data:,"}}]}], True),
        ([{"role": "user", "content": {"role": "user", "content": "a"}}], True),
    ],
)
def test_media(value: Any, has: bool) -> None:
    assert has_media(value) == has


@pytest.mark.parametrize(
    ("system", "has"),
    [
        (None, False),
        ("text", False),
        ([{"type": "text", "text": "a"}], False),
        ([{"type": "image", "source": {}}], True),
        ([{"type": "image", "role": "system", "source": {}}], True),
    ],
)
def test_media_in_a_system_prompt(system: Any, has: bool) -> None:
    assert has_media([], system) == has
