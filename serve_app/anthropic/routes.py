"""Anthropic's routes: messages go the way of every generation request, tokens are counted by any replica."""

import random

import msgspec

from deployments.replica_client import Call
from serve_app.anthropic.errors import REQUEST_ID
from serve_app.anthropic.requests import parse_count, parse_message
from serve_app.endpoint import Handler, HttpRequest
from serve_app.media import refuse_remote_media
from serve_app.openai import engine_errors
from serve_app.pipeline import Pipeline
from serve_app.relay import MAX_ERROR_BYTES, read_answer
from serve_app.replies import JSON_TYPE, Reply, json_reply
from serve_app.tenants import caller_of

PATH = "/v1/messages"
COUNT = f"{PATH}/count_tokens"


class _Counted(msgspec.Struct):
    input_tokens: int


class MessageRoutes:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def table(self) -> dict[str, dict[str, Handler]]:
        return {PATH: {"POST": self.create}, COUNT: {"POST": self.count}}

    async def create(self, request: HttpRequest) -> Reply:
        caller = caller_of(request.headers, request.id, request.principal)
        reply = await self._pipeline.generate(parse_message(request.body), caller)
        reply.headers = {**reply.headers, REQUEST_ID: request.id}
        return reply

    async def count(self, request: HttpRequest) -> Reply:
        """Costs a request, and no tokens."""
        model, body = parse_count(request.body)
        body = {**body, "model": self._pipeline.require_model(model, request.principal)}
        refuse_remote_media(body, self._pipeline.config.llm)
        ticket = self._pipeline.admission.take(request.principal, 0.0)
        try:
            replicas = list(self._pipeline.directory.replicas)
            random.shuffle(replicas)
            call = Call("POST", COUNT, {"content-type": JSON_TYPE, "x-request-id": request.id}, msgspec.json.encode(body))
            answer = await self._pipeline.client.send(call, replicas)
            raw = await read_answer(answer, MAX_ERROR_BYTES)
            if answer.status >= 400:
                raise engine_errors.from_engine(answer.status, raw, "messages")
            counted = msgspec.json.decode(raw, type=_Counted).input_tokens
        finally:
            ticket.end()
        return json_reply({"input_tokens": counted}, headers={**ticket.headers, REQUEST_ID: request.id})
