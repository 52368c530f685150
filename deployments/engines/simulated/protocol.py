"""Requests of the HTTP API, checked, and the errors that a client can cause, in vLLM's form.

Fields that change nothing here (temperature, tools, response_format ...) are accepted. Fields that are unknown are
ignored, as vLLM does. No message repeats what the client sent.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from deployments.config import SimulatedEngineConfig
from deployments.engines.simulated import tokenizer
from deployments.engines.simulated.generation import Task
from deployments.engines.simulated.text import Limits

MAX_CHOICES = 1024
MAX_SALT_CHARS = 128
SALT_FORBIDDEN = frozenset("@/\\\x00")

Positive = Annotated[int, Meta(ge=1)]
Token = Annotated[int, Meta(ge=0, lt=tokenizer.VOCABULARY_SIZE)]
NonEmpty = Annotated[str, Meta(min_length=1)]
T = TypeVar("T")


class ApiError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, type_: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": type_, "param": param, "code": status}}


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class Sampling(msgspec.Struct, kw_only=True):
    """What chat and completion requests have in common."""

    model: str | None = None
    max_tokens: Positive | None = None
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    ignore_eos: bool = False
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: NonEmpty | Annotated[list[NonEmpty], Meta(max_length=64)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=MAX_SALT_CHARS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    kv_transfer_params: dict[str, Any] | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def length(self) -> tuple[str, int | None]:
        """The field that limits the answer, and its value."""
        return "max_tokens", self.max_tokens

    def prompt_tokens(self) -> list[list[int]]:
        """The prompts as tokens."""
        raise NotImplementedError

    def task(self, config: SimulatedEngineConfig) -> Task:
        """Raises `ApiError` if the request cannot be served."""
        self._check()
        prompts = self.prompt_tokens()
        n = self.n or 1
        if n * len(prompts) > MAX_CHOICES:
            raise ApiError(f"at most {MAX_CHOICES} choices can be asked for at once.", param="n")
        limited = [(prompt, self._limits(len(prompt), config)) for prompt in prompts]
        most = (self.kv_transfer_params or {}).get("max_offload_tokens")
        offload = most if type(most) is int and most >= 0 else None
        return Task(limited, n, self.seed or 0, self.cache_salt, offload)

    def _check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise ApiError("Stream options can only be defined when `stream=True`.", param="stream_options")
        if self.cache_salt is not None and SALT_FORBIDDEN.intersection(self.cache_salt):
            raise ApiError("Parameter 'cache_salt' must not contain '@', '/', '\\\\', or NUL.", param="cache_salt")

    def _limits(self, prompt_tokens: int, config: SimulatedEngineConfig) -> Limits:
        field, wanted = self.length
        longest = config.max_model_len
        if wanted is not None and wanted > longest:
            raise ApiError(f"{field} cannot be greater than max_model_len={longest}.", param=field)
        if prompt_tokens >= longest:
            raise ApiError(_too_long(prompt_tokens, longest), param="input_tokens")
        default = config.default_max_tokens if self.ignore_eos else longest
        max_tokens = min(default if wanted is None else wanted, longest - prompt_tokens)
        if self.min_tokens > max_tokens:
            raise ApiError(f"min_tokens must be less than or equal to max_tokens={max_tokens}.", param="min_tokens")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Limits(max_tokens, config.default_max_tokens, self.min_tokens, self.ignore_eos, stop)


class ContentPart(msgspec.Struct):
    type: Literal["text", "refusal"]
    text: str = ""
    refusal: str = ""


class ChatMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[Any] | None = None

    def text(self) -> str:
        """What the prompt says for this message."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "\n".join(part.text or part.refusal for part in content)
        return content + _json(self.tool_calls) if self.tool_calls else content


class ChatRequest(Sampling, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    tools: list[Any] | None = None

    @property
    def length(self) -> tuple[str, int | None]:
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    def prompt_tokens(self) -> list[list[int]]:
        tools = [("tools", _json(self.tools))] if self.tools else []
        return [tokenizer.render(tools + [(message.role, message.text()) for message in self.messages])]


class CompletionRequest(Sampling, kw_only=True):
    """`POST /v1/completions`."""

    prompt: NonEmpty | Annotated[list[NonEmpty | Token | list[Token]], Meta(min_length=1)]

    def prompt_tokens(self) -> list[list[int]]:
        if isinstance(self.prompt, str):
            return [tokenizer.encode(self.prompt)]
        if all(isinstance(item, int) for item in self.prompt):
            return [[item for item in self.prompt if isinstance(item, int)]]
        return self._several(self.prompt)

    def _several(self, items: list[str | int | list[int]]) -> list[list[int]]:
        if len({type(item) for item in items}) > 1 or [] in items:
            raise ApiError("prompt must be a string, a list of strings, a list of tokens, or a list of lists of tokens.", param="prompt")
        return [tokenizer.encode(item) if isinstance(item, str) else item for item in items if not isinstance(item, int)]


class TokenizeRequest(msgspec.Struct):
    """`POST /tokenize`: a prompt, or a chat."""

    prompt: str | UnsetType = UNSET
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] | UnsetType = UNSET
    tools: list[Any] | None = None
    return_token_strs: bool | None = False

    def tokens(self) -> list[int]:
        if isinstance(self.prompt, str):
            return tokenizer.encode(self.prompt)
        if isinstance(self.messages, UnsetType):
            raise ApiError("Either prompt or messages must be provided.", param="prompt")
        return ChatRequest(messages=self.messages, tools=self.tools).prompt_tokens()[0]


class DetokenizeRequest(msgspec.Struct):
    """`POST /detokenize`."""

    tokens: list[Token]


def parse(body: bytes, type_: type[T]) -> T:
    """Raises `ApiError` if `body` is not JSON of this type."""
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("JSON decode error") from error


def _invalid(problem: str) -> ApiError:
    """From msgspec's words: "Expected `int`, got `str` - at `$.stop[0]`"."""
    message, _, path = problem.partition(" - at ")
    missing = re.search(r"missing required field `(\w+)`", message)
    fields = [path.strip("`").removeprefix("$").lstrip("."), missing.group(1) if missing else ""]
    message = re.sub(r"(Invalid enum value) .*", r"\1", message, flags=re.DOTALL)  # the value is the client's
    return ApiError(message, param=".".join(filter(None, fields)) or None)


def _too_long(prompt_tokens: int, longest: int) -> str:
    return (
        f"This model's maximum context length is {longest} tokens. However, your prompt contains {prompt_tokens} input "
        "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
