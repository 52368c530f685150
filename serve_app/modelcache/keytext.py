"""What of a dialog is compared, and how ModelCache writes it.

ModelCache compares either its last message alone or all of them glued together. The first gives every user of one system
prompt one answer when that prompt comes last, as in its README; the second lets `###` and `|||` in a text move the borders
between messages. Here the last user message is the question, and everything around it must be equal.

These take messages that `serve_app.modelcache.protocol` has checked, and do not fail on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.modelcache.backend import Message


@dataclass(frozen=True, slots=True)
class Question:
    """Two dialogs are equivalent only if their `text`s mean the same and their `rest`s are equal.

    `rest` is the whole dialog in its order, its texts in one form, and the question's message without its text. It is
    JSON, for `cache.keys.fingerprint`.
    """

    text: str
    rest: list[Message]

    @property
    def blank(self) -> bool:
        """Nothing is asked: never a hit, and nothing to keep an answer under."""
        return not self.text.strip()


def question_of(messages: Sequence[Message]) -> Question:
    """A dialog without a user message is asked by its last one, as ModelCache has it; its role is in `rest`."""
    if not messages:
        return Question("", [])
    asked = _asked(messages)
    rest = [_canonical(message, with_text=index != asked) for index, message in enumerate(messages)]
    return Question(text_of(messages[asked]), rest)


def key_text(messages: Sequence[Message]) -> str:
    """The question as ModelCache shows it, in `hit_query` and in the query log: `user: Who are you?`."""
    if not messages:
        return ""
    message = messages[_asked(messages)]
    return f"{_role(message)}: {text_of(message)}"


def text_of(message: Message) -> str:
    """A content without text is the empty one: an assistant's that only calls tools, or none at all."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


def _asked(messages: Sequence[Message]) -> int:
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    return users[-1] if users else len(messages) - 1


def _canonical(message: Message, *, with_text: bool) -> Message:
    """Fields that are null are those that are left out. Only the question has no `content`."""
    others = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
    text = {"content": text_of(message)} if with_text else {}
    return {**others, "role": _role(message), **text}


def _role(message: Message) -> str:
    return message.get("role") or ""
