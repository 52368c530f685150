"""What of a dialog is compared, and how it is shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.keys import fingerprint
from serve_app.modelcache.backend import Message
from serve_app.modelcache.keytext import key_text, question_of, text_of

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Who are you?"}


def said(role: str, content: Any, **fields: Any) -> Message:
    return {"role": role, "content": content, **fields}


def rest_of(*messages: Message) -> str:
    return fingerprint(question_of(messages).rest)


@pytest.mark.parametrize(
    ("messages", "text", "key"),
    [
        ([SYSTEM, USER], "Who are you?", "user: Who are you?"),
        ([USER, SYSTEM], "Who are you?", "user: Who are you?"),
        ([USER, said("assistant", "I am."), said("user", "Really?")], "Really?", "user: Really?"),
        ([USER, said("assistant", "I am."), said("tool", "7")], "Who are you?", "user: Who are you?"),
        ([said("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "a\nb", "user: a\nb"),
        ([SYSTEM], "Be brief.", "system: Be brief."),
        ([{"content": "hello"}], "hello", ": hello"),
        ([{"role": "user"}], "", "user: "),
        ([said("user", None)], "", "user: "),
        ([said("user", "a###b|||user###c")], "a###b|||user###c", "user: a###b|||user###c"),
        ([], "", ""),
    ],
)
def test_the_question_is_the_last_user_message(messages: list[Message], text: str, key: str) -> None:
    assert question_of(messages).text == text
    assert key_text(messages) == key


def test_the_rest_is_everything_but_the_questions_text() -> None:
    assert question_of([SYSTEM, USER]).rest == [{"role": "system", "content": "Be brief."}, {"role": "user"}]
    assert question_of([USER, SYSTEM]).rest == [{"role": "user"}, {"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([SYSTEM, USER], [USER]),
        ([SYSTEM, USER], [USER, SYSTEM]),
        ([SYSTEM, USER], [said("system", "Be long."), USER]),
        ([SYSTEM, USER], [said("developer", "Be brief."), USER]),
        ([USER], [said("user", "Who are you?", name="Ann")]),
        ([USER], [said("tool", "Who are you?")]),
        ([said("assistant", ""), USER], [USER, said("assistant", "")]),
        # Glued together, these two are one text.
        ([said("user", "a|||user###b"), USER], [said("user", "a"), said("user", "b"), USER]),
        ([said("assistant", None, tool_calls=[{"id": 1}]), USER], [said("assistant", None, tool_calls=[{"id": 2}]), USER]),
    ],
)
def test_dialogs_that_differ_around_the_question(one: list[Message], other: list[Message]) -> None:
    assert rest_of(*one) != rest_of(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([SYSTEM, USER], [SYSTEM, said("user", "What are you?")]),
        ([SYSTEM, USER], [{"content": "Be brief.", "role": "system"}, USER]),
        ([SYSTEM, USER], [said("system", [{"type": "text", "text": "Be brief."}]), USER]),
        ([USER], [said("user", "Who?", name=None)]),
        ([said("assistant", None), USER], [{"role": "assistant"}, USER]),
    ],
)
def test_dialogs_that_are_equal_around_the_question(one: list[Message], other: list[Message]) -> None:
    assert rest_of(*one) == rest_of(*other)


@pytest.mark.parametrize("text", ["", " ", "\n    "])
def test_a_blank_question(text: str) -> None:
    assert question_of([SYSTEM, said("user", text)]).blank
    assert not question_of([said("system", text), USER]).blank


messages = st.lists(
    st.fixed_dictionaries({}, optional={"role": st.none() | st.text(), "content": st.none() | st.text(), "name": st.text()}), max_size=4
)


@given(messages)
def test_text_and_rest_are_the_whole_dialog(dialog: list[Message]) -> None:
    question = question_of(dialog)
    without_text = [message for message in question.rest if "content" not in message]
    assert len(without_text) == bool(dialog)
    put_back = [message if "content" in message else {**message, "content": question.text} for message in question.rest]
    assert [(m["role"], m["content"], m.get("name")) for m in put_back] == [
        (m.get("role") or "", text_of(m), m.get("name")) for m in dialog
    ]
