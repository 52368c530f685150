"""The contract of engines: what stands behind one LLM replica."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI 3 application: (scope, receive, send)."""


@dataclass(frozen=True, slots=True)
class KvEventSource:
    """Where one engine publishes its KV events, in vLLM's wire format.

    PUB frames are `[topic, sequence (8 bytes, big endian), msgpack(KVEventBatch)]`; the replay socket answers
    `[b"", first sequence]` with the batches from there on, and ends with sequence -1.
    """

    endpoint: str
    """ZMQ address of the PUB socket that another host can connect to."""
    replay_endpoint: str | None
    topic: str
    dp_rank: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is doing now."""

    running: int
    """Requests in the running batch."""
    waiting: int
    """Requests admitted but not yet running."""
    kv_usage: float
    """Share of KV blocks in use, 0 to 1."""

    @property
    def ongoing(self) -> int:
        return self.running + self.waiting


class Engine(Protocol):
    """One engine, in the event loop of its replica.

    `app` speaks OpenAI's API (`/v1/models`, `/v1/chat/completions`, `/v1/completions`) in vLLM's dialect, with
    `usage.prompt_tokens_details.cached_tokens`, and `/health`. A request whose client disconnects is aborted in the
    engine. A request's `x-request-id` header becomes the last part of its answer's `id`.
    """

    @property
    def app(self) -> ASGIApp:
        """Available after `start`."""

    @property
    def reuses_tokens(self) -> bool:
        """It takes the prompt's tokens in `kv_transfer_params.prompt_token_ids`, and does not render the prompt then."""

    @property
    def block_size(self) -> int:
        """Tokens in one KV block. Available after `start`."""

    @property
    def kv_blocks(self) -> int:
        """Blocks that its cache on the device holds. Available after `start`."""

    @property
    def max_model_len(self) -> int:
        """Longest prompt and answer together, in tokens. Available after `start`."""

    @property
    def max_running(self) -> int:
        """Requests that it works on at once; more wait in it. Available after `start`."""

    @property
    def control_tokens(self) -> Sequence[str]:
        """Texts that its tokenizer takes for control tokens, as far as `retrieval.prompt` does not know them. Available after `start`."""

    async def start(self) -> None:
        """Returns when the engine can answer. Raises `EngineStartError`."""

    async def stop(self) -> None:
        """Ends the engine and every process it started. Calling it twice is harmless."""

    def load(self) -> Load:
        """What the engine is doing now; cheap enough for ten calls a second."""

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        """One source for each data-parallel rank. Available after `start`."""

    async def render(self, path: str, body: bytes) -> Sequence[int] | None:
        """The prompt's tokens for a request to `path`, by the template and tokenizer that the request itself will meet.

        None where there is no one prompt, or no valid one: the request itself will tell why.
        """

    async def encode(self, texts: Sequence[str]) -> list[Sequence[int]] | None:
        """The tokens of texts as parts of a prompt: without special tokens. None where that cannot be told."""

    async def reset_prefix_cache(self) -> bool:
        """Forgets all cached blocks. False, and no change, while requests hold some."""

    async def check_health(self) -> None:
        """Raises `EngineDeadError` once the engine can no longer answer."""
