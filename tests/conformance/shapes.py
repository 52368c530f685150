"""What OpenAI's reference says that answers look like.

The official client's own types say which fields there are and what they hold. They take a nullable field for one that may be missing;
where the reference requires it (as null, if need be), `NULLABLE` names it.
"""

import json
from typing import Any, TypeVar

import httpx
import openai
from openai.types import Completion, CreateEmbeddingResponse, Model, VectorStore
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage, chat_completion, chat_completion_chunk
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob
from openai.types.completion_choice import CompletionChoice
from openai.types.completion_usage import CompletionUsage
from openai.types.vector_stores import VectorStoreFile

T = TypeVar("T", bound=openai.BaseModel)

NULLABLE: dict[type, tuple[str, ...]] = {
    ChatCompletionMessage: ("content", "refusal"),
    chat_completion.Choice: ("logprobs",),
    chat_completion_chunk.Choice: ("finish_reason",),
    ChatCompletionTokenLogprob: ("bytes",),
    TopLogprob: ("bytes",),
    CompletionChoice: ("logprobs",),
    VectorStore: ("last_active_at", "metadata"),
    VectorStoreFile: ("last_error",),
}
"""Fields that are required and may be null."""
ERROR_FIELDS = {"message", "type", "param", "code"}


def checked(raw: Any, shape: type[T]) -> T:
    """`raw`, which is parsed JSON, as the client's own type: with every field that it must have, and none of another type."""
    value = shape.model_validate_json(json.dumps(raw), strict=True)
    missing = list(_missing(value, shape.__name__))
    assert not missing, f"required by the reference, and not there: {missing}"
    return value


def _missing(value: Any, at: str) -> Any:
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _missing(each, f"{at}[{number}]")
    elif isinstance(value, openai.BaseModel):
        for name in NULLABLE.get(type(value), ()):
            if name not in value.model_fields_set:
                yield f"{at}.{name}"
        for name in type(value).model_fields:
            yield from _missing(getattr(value, name), f"{at}.{name}")


def chat_answer(response: httpx.Response) -> ChatCompletion:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "application/json"
    answer = checked(response.json(), ChatCompletion)
    assert answer.id.startswith("chatcmpl-")
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    check_usage(answer.usage)
    return answer


def completion_answer(response: httpx.Response) -> Completion:
    assert response.status_code == 200, response.text
    answer = checked(response.json(), Completion)
    assert answer.id.startswith("cmpl-")
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    check_usage(answer.usage)
    return answer


def embedding_answer(response: httpx.Response, *, is_base64: bool = False) -> Any:
    """The parsed body. The client's type has vectors as lists only: with `is_base64` they are left out of the comparison."""
    assert response.status_code == 200, response.text
    raw = response.json()
    comparable = {**raw, "data": [{**each, "embedding": [0.0]} for each in raw["data"]]} if is_base64 else raw
    checked(comparable, CreateEmbeddingResponse)
    assert [each["index"] for each in raw["data"]] == list(range(len(raw["data"])))
    return raw


def model(raw: Any) -> Model:
    return checked(raw, Model)


def check_usage(usage: CompletionUsage | None) -> None:
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    if usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens is not None:
        assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def error_of(response: httpx.Response, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The error object. `param` and `code` are compared if they are given."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    assert response.headers["content-type"].split(";")[0] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == ERROR_FIELDS
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)
    assert isinstance(error["code"], str | None)
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return error


def events(text: str) -> list[Any]:
    """The data of a stream's events, parsed; `[DONE]`, which must be the last, is left out."""
    assert text.endswith("data: [DONE]\n\n"), text[-200:]
    parts = text.removesuffix("\n\n").split("\n\n")
    assert all(part.startswith("data: ") and "\n" not in part for part in parts), "an event is one line that begins with data:"
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]


def chat_chunks(response: httpx.Response) -> list[ChatCompletionChunk]:
    """A stream's chunks, each in the reference's shape, and all of one answer."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = [checked(each, ChatCompletionChunk) for each in events(response.text)]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    return chunks


def completion_chunks(response: httpx.Response) -> list[Any]:
    """A stream's chunks, parsed. The client has no type of theirs: it takes `Completion`, whose finish reason may not be null."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    raw = events(response.text)
    for chunk in raw:
        ended = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        checked({**chunk, "choices": ended}, Completion)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in raw}) == 1
    return raw


def json_body(answer: httpx.Response) -> dict[str, Any]:
    """Of an answer that is to be a success."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    body: dict[str, Any] = answer.json()
    return body
