"""Kept answers as lines of JSON: how they leave a tenant's cache, and how they come back."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cache.entry import Entry
from cache.errors import KeyFormatError
from serve_app.config import AppConfig
from serve_app.content.guard import Guard
from serve_app.errors import InvalidRequestError, to_api_error
from serve_app.modelcache.cache_backend import PREFIX, REGISTERED
from serve_app.openai.answers import completion_tokens, of_text
from serve_app.openai.kept import KeptMessage, KeptResponse
from serve_app.openai.requests import Tag, check, parse_chat, parse_object
from serve_app.tenants import Caller
from serve_app.tiers import CacheTiers

MAX_TOKENS = 2**31 - 1
"""What the store's column holds."""
_LINE_ENDS = ("\u0085", "\u2028", "\u2029")
"""JSON takes them as they are; many readers of lines end a line there."""
_CHARS_PER_TOKEN = 4

Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int
    finish_reason: str
    message: _Message | UnsetType = UNSET
    text: str | UnsetType = UNSET


class _Answer(msgspec.Struct):
    """What a replay needs of an answer (`serve_app.openai.answers`)."""

    object: Literal["chat.completion", "text_completion"]
    choices: Annotated[list[_Choice], Meta(min_length=1)]
    usage: dict[str, Any]


class _ModelCacheAnswer(msgspec.Struct, forbid_unknown_fields=True):
    answer: str
    query: str


class _Registration(msgspec.Struct, forbid_unknown_fields=True): ...


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of an import. Without `key`: the answer to a chat that consists of `text` and has default parameters. With it: an exported
    line, whose key and fingerprint say which request it answers."""

    model: Annotated[str, Meta(min_length=1, max_length=255)]
    answer: Annotated[str, Meta(min_length=1)] | dict[str, Any]
    text: Annotated[str, Meta(min_length=1)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=16)] = []
    ttl_s: Annotated[float, Meta(gt=0)] | None = None
    key: Hash | None = None
    fingerprint: Hash | None = None
    tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    created_at: float | None = None
    expires_at: float | None = None
    id: str | None = None
    object: Literal["cache.entry"] | None = None


def write_line(entry: Entry) -> bytes:
    """Empty for an answer that was damaged in the store: nobody could use it."""
    try:
        answer = msgspec.json.decode(entry.answer)
    except msgspec.DecodeError:
        return b""
    shown = {"id": entry.id, "object": "cache.entry", "model": entry.model, "text": entry.text, "answer": answer, "tags": entry.tags}
    times = {"created_at": int(entry.created_at), "expires_at": int(entry.expires_at)}
    place = {"key": entry.exact_key, "fingerprint": entry.fingerprint or None, "tokens": entry.tokens}
    line = msgspec.json.encode({**shown, **times, **place})
    for each in _LINE_ENDS:
        line = line.replace(each.encode(), f"\\u{ord(each):04x}".encode())
    return line + b"\n"


class LineReader:
    """Makes entries of lines, as the tiers would keep them in one namespace at one epoch of it. They lack their vectors.

    `guard`: the tenant's content rules, which they pass.
    """

    def __init__(
        self, config: AppConfig, tiers: CacheTiers, caller: Caller, namespace: str, epoch: int, now: float, guard: Guard | None = None
    ) -> None:
        self._config = config
        self._tiers = tiers
        self._caller = caller
        self._namespace = namespace
        self._epoch = epoch
        self._now = now
        self._guard = guard

    def read(self, raw: bytes, entry_id: str) -> Entry:
        """Raises `ApiError`, whose message names the field and never its value."""
        try:
            value = parse_object(raw)
        except InvalidRequestError:
            raise InvalidRequestError("The line is not a JSON object in UTF-8, or it is nested too deep.") from None
        line = check({key: each for key, each in value.items() if each is not None}, Line)
        line = msgspec.structs.replace(line, model=self._config.llm.model.own_name(line.model))
        answer = _answer(line)
        if self._guard:
            self._guard.imported(answer)
        entry = self._restored(line, entry_id) if line.key else self._asked(line, entry_id)
        kept = replace(entry, answer=msgspec.json.encode(answer), tokens=_tokens(line, answer))
        self._check(kept)
        return kept

    def _asked(self, line: Line, entry_id: str) -> Entry:
        """Of the request that the line stands for, built and looked at as if a client had sent it."""
        if line.text is None or not line.text.strip():
            raise InvalidRequestError("text must not be missing or blank.", param="text")
        if line.model != self._config.llm.model.name and line.model not in self._config.llm.model.adapters:
            raise InvalidRequestError("model: this one does not answer here.", param="model")
        options = {"tags": line.tags, **({"ttl_s": line.ttl_s} if line.ttl_s else {})}
        body = {"model": line.model, "messages": [{"role": "user", "content": line.text}], "cache": options}
        try:
            lookup = self._tiers.lookup(parse_chat(msgspec.json.encode(body)), self._caller, self._namespace, self._guard)
            self._tiers.ask(lookup)
        except KeyFormatError as error:
            raise to_api_error(error) from None
        entry = self._entry(line, entry_id, lookup.key, lookup.fingerprint, self._now)
        return replace(entry, text=lookup.text, expires_at=self._now + lookup.ttl_s)

    def _restored(self, line: Line, entry_id: str) -> Entry:
        """As old as it was: an export does not make answers younger."""
        # A longer text is found by its own words only, as a chat with it would be.
        is_compared = line.fingerprint is not None and len(line.text or "") <= self._config.cache.semantic.max_text_chars
        created_at = min(self._now if line.created_at is None else line.created_at, self._now)
        entry = self._entry(line, entry_id, line.key or "", (line.fingerprint or "") if is_compared else "", created_at)
        ends = [entry.expires_at, *([] if line.expires_at is None else [line.expires_at])]
        return replace(entry, text=line.text if is_compared else None, expires_at=min(ends))

    def _entry(self, line: Line, entry_id: str, key: str, fingerprint: str, since: float) -> Entry:
        config = self._config.cache.of(self._caller.tenant)
        return Entry(
            id=entry_id,
            namespace=self._namespace,
            exact_key=key,
            fingerprint=fingerprint,
            model=line.model,
            text=None,
            answer=b"",
            created_at=self._now,
            expires_at=since + min(line.ttl_s or config.ttl_s, config.ttl_s),
            stale_at=None if config.soft_ttl_s is None else since + config.soft_ttl_s,
            epoch=self._epoch,
            tags=tuple(dict.fromkeys(line.tags)),
        )

    def _check(self, entry: Entry) -> None:
        limit = self._config.cache.max_answer_bytes
        if len(entry.answer) > limit:
            raise InvalidRequestError(f"answer: longer than {limit} bytes.", param="answer")
        if not entry.live(self._now):
            raise InvalidRequestError("expires_at: the answer is too old.", param="expires_at")


def _answer(line: Line) -> dict[str, Any]:
    """In the form that is kept. Raises `InvalidRequestError`."""
    if isinstance(line.answer, str):
        if not line.answer.strip():
            raise InvalidRequestError("answer must not be blank.", param="answer")
        return of_text(line.answer, line.model)
    try:
        _check_answer(line, line.answer)
    except InvalidRequestError as error:
        joint = ": " if error.message[0].isupper() else "."  # a sentence of the whole, or a field's name
        raise InvalidRequestError(f"answer{joint}{error.message}", param="answer") from None
    return {key: each for key, each in line.answer.items() if key not in ("id", "created", "created_at")}


def _check_answer(line: Line, given: dict[str, Any]) -> None:
    """Whatever is kept must be fit to be replayed."""
    if line.key is not None and line.model.startswith((PREFIX, REGISTERED)):
        check(given, _ModelCacheAnswer if line.model.startswith(PREFIX) else _Registration)
        return
    if line.key is not None and "choices" not in given:
        check(given, KeptMessage if given.get("type") == "message" else KeptResponse)
        return
    answer = check(given, _Answer)
    if any((choice.message is UNSET) == (choice.text is UNSET) for choice in answer.choices):
        raise InvalidRequestError("choices: each needs either message or text.")
    if line.key is None and answer.object != "chat.completion":
        raise InvalidRequestError("object: must be chat.completion.")


def _tokens(line: Line, answer: dict[str, Any]) -> int:
    """Roughly, where nobody has counted them: what counts nothing is the first to be evicted."""
    if line.tokens is not None:
        return line.tokens
    if isinstance(line.answer, str):
        return 1 + len(line.answer) // _CHARS_PER_TOKEN
    return min(completion_tokens(answer), MAX_TOKENS)
