"""Texts that come to a model beside what a client says: documents for a prompt, and what is to be embedded."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from retrieval.documents import SearchHit
from serve_app.content.answers import BLOCKED
from serve_app.content.base import Rule
from serve_app.content.guard import LONG_BYTES, Guard
from serve_app.content.stream import Stream, passed
from serve_app.errors import InvalidRequestError


async def permitted_hits(guard: Guard | None, hits: Sequence[SearchHit]) -> list[SearchHit]:
    """Documents as a prompt may have them: what rules for prompts mask is masked, and what they block is left out."""
    results = await _passed(guard, [hit.chunk.text for hit in hits])
    pairs = zip(hits, results, strict=True)
    return [replace(hit, chunk=replace(hit.chunk, text=text)) for hit, (text, blocked_by) in pairs if blocked_by is None]


async def permitted_inputs(guard: Guard | None, texts: Sequence[str]) -> list[str]:
    """Raises `InvalidRequestError` for a text that a rule for prompts blocks."""
    results = await _passed(guard, texts)
    for blocked_by in (each for _, each in results if each):
        raise InvalidRequestError(f"The input is against the content rule {blocked_by.name}.", param="input", code=BLOCKED)
    return [text for text, _ in results]


async def _passed(guard: Guard | None, texts: Sequence[str]) -> list[tuple[str, Rule | None]]:
    """What passes of each text, and the rule that ended it."""
    if guard is None or guard.prompt is None:
        return [(text, None) for text in texts]
    rules = guard.prompt

    def work() -> list[tuple[str, Stream]]:
        return [passed(text, rules) for text in texts]

    found = await asyncio.to_thread(work) if sum(map(len, texts)) > LONG_BYTES else work()
    for _, stream in found:
        for rule in stream.matched:
            guard.met(rule)
    return [(text, stream.blocked_by) for text, stream in found]
