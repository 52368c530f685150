"""Requests to a pipeline with fakes around it, and what comes back."""

import json
from typing import Any

import msgspec

from serve_app.keyring.settings import CacheUse
from serve_app.openai import sse
from serve_app.openai.requests import Generation, parse_chat, parse_completion
from serve_app.replies import Reply
from serve_app.tenants import DEFAULT_TENANT, Caller, Principal
from tests.serve_app.fakes import MODEL, World


def chat(text: str = "What is a cache?", **fields: Any) -> Generation:
    return parse_chat(json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}).encode())


def completion(prompt: str = "A cache is", **fields: Any) -> Generation:
    return parse_completion(json.dumps({"model": MODEL, "prompt": prompt, **fields}).encode())


def caller(tenant: str = DEFAULT_TENANT, *, cache: CacheUse = "on", **directives: bool) -> Caller:
    return Caller("r-1", Principal(tenant, cache=cache), **directives)


async def bytes_of(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


async def ask(world: World, request: Generation, who: Caller | None = None) -> tuple[str, bytes]:
    """The `x-mygo-cache` header and the body, once everything that is to be kept has been written."""
    reply = await world.pipeline.generate(request, who or caller())
    assert reply.status == 200
    body = await bytes_of(reply)
    await world.keeper.drain()
    return reply.headers["x-mygo-cache"], body


def text_of(body: bytes) -> str:
    """What an answer says, be it whole or a stream."""
    if body.startswith(b"{"):
        choice = msgspec.json.decode(body)["choices"][0]
        return str(choice["message"]["content"] if "message" in choice else choice["text"])
    chunks = [msgspec.json.decode(payload) for payload in sse.payloads(body) if payload != b"[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)
