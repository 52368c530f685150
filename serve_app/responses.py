"""What belongs to `/v1/responses`: counting a prompt's tokens, and routes for responses that were stored, of which here none is."""

from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError, UnavailableError
from serve_app.media import refuse_remote_media
from serve_app.openai.responses import INSTEAD, parse_response
from serve_app.pipeline import Pipeline
from serve_app.relay import engine_request
from serve_app.replies import Reply, json_reply
from serve_app.tenants import caller_of

COUNT = "/v1/responses/input_tokens"


class ResponseRoutes:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def table(self) -> dict[str, dict[str, Handler]]:
        return {
            COUNT: {"POST": self.count},
            "/v1/responses/{response_id}": {"GET": _not_stored, "DELETE": _not_stored},
            "/v1/responses/{response_id}/cancel": {"POST": _not_stored},
            "/v1/responses/{response_id}/input_items": {"GET": _not_stored},
        }

    async def count(self, request: HttpRequest) -> Reply:
        """Costs a request, and no tokens."""
        pipeline = self._pipeline
        asked = pipeline.checked(parse_response(request.body), request.principal)
        refuse_remote_media(asked.body, pipeline.config.llm)
        caller = caller_of(request.headers, request.id, request.principal)
        ticket = pipeline.admission.take(request.principal, 0.0)
        try:
            if not pipeline.directory.replicas:
                raise UnavailableError("No replica can take the request now. Try again.", code="no_replica")
            call, _, _ = engine_request(asked, caller, pipeline.namespaces.of(request.principal.tenant))
            tokens = await pipeline.routing.tokens(call)
        finally:
            ticket.end()
        if tokens is None:  # the engine makes no prompt of it; its reasons are in its answers only
            message = "The engine could not read this, or it is longer than its context. A response to the same input says what is wrong."
            raise InvalidRequestError(message, param="input", code="invalid_prompt")
        return json_reply({"object": "response.input_tokens", "input_tokens": len(tokens)}, headers=ticket.headers)


async def _not_stored(request: HttpRequest) -> Reply:
    raise NotFoundError(INSTEAD, param="response_id", code="response_not_stored")
