"""Checks request bodies, and says what a generation request asks for.

Only what the ingress needs, or must refuse before an engine sees it, is typed here; every other field is the engine's.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from deployments.head_start import HeadStart
from retrieval.documents import SearchHit
from retrieval.filters import parse_filter
from retrieval.order import Ranks
from serve_app.contexts.asked import Mark, Reference, take_marks, take_reference
from serve_app.errors import InvalidRequestError
from serve_app.json_size import MAX_ITEMS, MAX_PARTS, MAX_TEXTS, is_too_much
from serve_app.openai.field_errors import field_error
from serve_app.openai.kinds import BESIDE, PATHS, PROMPTS, WITH_CHOICES, Kind, characters_of
from serve_app.openai.reference import check_chat, check_completion, check_embedding

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Count = Annotated[int, Meta(ge=1)]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^\S([\s\S]*\S)?\Z")]
"""Without spaces around: MySQL takes `a` and `a ` for one."""
Penalty = Annotated[float, Meta(ge=-2, le=2)]
MAX_N = 128
MAX_DEPTH = 64
"""Levels of nesting in a body; tool schemas stay far below."""


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class CacheOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`on`: both tiers. `exact`: that tier only. `refresh`: answer anew and keep. `off`: neither look up nor keep."""

    mode: Literal["on", "off", "exact", "refresh"] = "on"
    ttl_s: Annotated[float, Meta(gt=0)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=16)] = []
    """What the kept answer may be invalidated by later."""


class RetrievalOptions(msgspec.Struct, forbid_unknown_fields=True):
    vector_store_ids: Annotated[list[str], Meta(min_length=1, max_length=10)]
    top_k: Annotated[int, Meta(ge=1)] = 5
    reorder: bool = True
    """The documents may be put in the order of which most is cached. Their ranks are told to the model in any case."""
    citations: Literal["numbers", "ids", "labels"] = "numbers"
    """What the answer cites by."""
    filters: dict[str, Any] | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """What chat and text completions have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_N)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | None = None
    """Among the tenant's own requests that wait for an engine, the lowest goes first."""
    cache_salt: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    cache: CacheOptions | None = None


class ChatMessage(msgspec.Struct):
    role: Role
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(Sampling, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    retrieval: RetrievalOptions | None = None


class CompletionRequest(Sampling, kw_only=True):
    prompt: str | Annotated[list[Any], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    """0: nothing but the prompt, which `echo` gives."""
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    user: str | None = None


T = TypeVar("T")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises `InvalidRequestError`."""
    if is_too_much(body):
        message = f"The body has more than {MAX_PARTS} objects, lists and fields, {MAX_TEXTS} texts, or {MAX_ITEMS} values."
        raise InvalidRequestError(message, code="invalid_json")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        _refuse_not_a_number(body)
        raise InvalidRequestError("The body is not valid JSON in UTF-8.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequestError(f"The body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.", code="invalid_json")
    _refuse_deep(value, MAX_DEPTH)
    return value


def _refuse_not_a_number(body: bytes) -> None:
    """NaN and Infinity are no JSON, but Python clients write them: the error can name the field."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, float) and not math.isfinite(each) and key in _KNOWN_FIELDS:
                raise InvalidRequestError(f"{key} must be a finite number.", param=key)


def _refuse_deep(value: Any, levels: int) -> None:
    if levels == 0:
        raise InvalidRequestError(f"The body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for each in value:
        if isinstance(each, dict | list):
            _refuse_deep(each, levels - 1)


def check(value: dict[str, Any], kind: type[T]) -> T:
    """The typed view of a body. Raises `InvalidRequestError`, which names the field and never its value."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise field_error(str(error), kind) from None


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for a chat."""

    messages: list[dict[str, Any]]
    """As the client wrote them."""
    hits: tuple[SearchHit, ...]
    """Best first."""
    scope: str
    """The namespace that they are of: their tenants' or groups' keys and values are kept under its salt."""
    ranks: Ranks | None = None
    """How far they may be moved; None: not at all."""
    left_out: int = 0
    """Hits that the model's context has no room for: the lowest ranked."""
    head_start: HeadStart | None = None
    """What was begun with while they were searched for."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked request for an answer, as the pipeline sees it."""

    kind: Kind
    body: dict[str, Any]
    """The client's own fields, without nulls."""
    model: str
    stream: bool
    include_usage: bool
    cache: CacheOptions
    retrieval: RetrievalOptions | None
    max_tokens: int | None
    priority: int = 0
    adapter: str | None = None
    """The LoRA adapter that the engine is to use, once it is known."""
    retrieved: Retrieved | None = None
    """The documents that `body` has in its messages, in the order of their ranks."""

    marks: tuple[Mark, ...] = ()
    """Up to where its prompt is to be kept."""
    context: Reference | None = None
    """What it begins with, if `body` does not have that in its messages yet."""
    context_headers: Mapping[str, str] = field(default_factory=dict)
    """What is to be said of kept contexts."""

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to it says in its headers."""
        return {**self._retrieval_headers(), **self.context_headers}

    @property
    def begins_kept(self) -> bool:
        """A replica keeps its beginning, as far as is known."""
        return "msh-context-cache-id" in self.context_headers or self.context_headers.get("x-mygo-context") == "kept"

    def _retrieval_headers(self) -> dict[str, str]:
        if not self.retrieved:
            return {}
        left_out = {"x-mygo-documents-left-out": str(self.retrieved.left_out)} if self.retrieved.left_out else {}
        return {"x-mygo-documents": ",".join(hit.chunk.id for hit in self.retrieved.hits), **left_out}

    @property
    def choices(self) -> int:
        """Answers that it asks for."""
        prompts = self.body.get("prompt")
        several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
        return several * int(self.body.get("n", 1))

    @property
    def path(self) -> str:
        return PATHS[self.kind]

    @property
    def skips_prefix_cache(self) -> bool:
        """It asks for probabilities of the prompt's tokens, so the engine must compute all of them."""
        return bool(self.body.get("prompt_logprobs") or (self.body.get("echo") and self.body.get("logprobs") is not None))

    @property
    def prompt_characters(self) -> int:
        """About how long the prompt is; 0 where its tokens cannot be known beforehand: several prompts, or media."""
        if self.skips_prefix_cache:
            return 0
        if self.kind not in WITH_CHOICES:
            return characters_of([self.body.get(field) for field in (*PROMPTS[self.kind], "tools")])
        if self.kind == "completion":
            return _characters_of_prompt(self.body["prompt"])
        parts = [part for message in self.body["messages"] for part in _parts(message.get("content"))]
        if any(part.get("type") != "text" for part in parts):
            return 0
        beside = [self.body.get("tools"), *(message.get("tool_calls") for message in self.body["messages"])]
        return sum(_length(part.get("text")) for part in parts) + sum(len(msgspec.json.encode(each)) for each in beside if each)

    @property
    def prompt_bytes(self) -> int:
        """Of the prompt's text in UTF-8, at most, with what a template may put into it."""
        return len(msgspec.json.encode([self.body.get(name) for name in (*PROMPTS[self.kind], *BESIDE)]))

    @property
    def prompt_field(self) -> str:
        return PROMPTS[self.kind][0]

    @property
    def length_field(self) -> str:
        """The field that limits the answer."""
        return next((field for field in ("max_completion_tokens", "max_output_tokens") if field in self.body), "max_tokens")


def _parts(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content or ""}] if isinstance(content, str | None) else content


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0  # what else it may be is the engine's to refuse


def _characters_of_prompt(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    if all(isinstance(token, int) for token in prompt):
        return 4 * len(prompt)
    return _characters_of_prompt(prompt[0]) if len(prompt) == 1 and isinstance(prompt[0], str | list) else 0


def parse_chat(body: bytes) -> Generation:
    value = parse_object(body)
    reference = take_reference(value)
    request = check(value, ChatRequest)
    marks = take_marks(value) if b"cache_control" in body else ()
    _refuse_file_search(request.tools or ())
    check_chat(value)
    if request.retrieval and request.retrieval.filters is not None:
        parse_filter(request.retrieval.filters, "retrieval.filters")  # refused before anything is done for the request
    generation = _generation("chat", value, request, request.retrieval, request.max_completion_tokens or request.max_tokens)
    return replace(generation, marks=marks, context=reference) if marks or reference else generation


def _refuse_file_search(tools: Sequence[dict[str, Any]]) -> None:
    """OpenAI's way to ask for documents, in another route of its: an engine would not know it, or worse, leave it out."""
    for at, tool in enumerate(tools):
        if tool.get("type") == "file_search":
            raise InvalidRequestError(
                f'tools[{at}].type: a chat asks for documents by the field retrieval, for example {{"vector_store_ids": ["vs_..."]}}, '
                "not by the tool file_search.",
                param=f"tools[{at}].type",
                code="unsupported_parameter",
            )


def parse_completion(body: bytes) -> Generation:
    value = parse_object(body)
    if value.get("retrieval") is not None:
        raise InvalidRequestError("retrieval is for chat completions.", param="retrieval", code="unsupported_parameter")
    request = check(value, CompletionRequest)
    check_completion(value)
    return _generation("completion", value, request, None, request.max_tokens)


def _generation(
    kind: Literal["chat", "completion"],
    value: dict[str, Any],
    request: Sampling,
    retrieval: RetrievalOptions | None,
    max_tokens: int | None,
) -> Generation:
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options is only allowed when stream is true.", param="stream_options")
    return Generation(
        kind=kind,
        body={key: each for key, each in value.items() if each is not None},
        model=request.model,
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        cache=request.cache or CacheOptions(),
        retrieval=retrieval,
        max_tokens=max_tokens,
        priority=request.priority or 0,
    )


def parse_embedding(body: bytes) -> EmbeddingRequest:
    value = parse_object(body)
    check_embedding(value)
    return check(value, EmbeddingRequest)


Parser = Callable[[bytes], Generation]
_KNOWN_FIELDS = {field.name for kind in (ChatRequest, CompletionRequest) for field in msgspec.structs.fields(kind)}
