"""OpenAI's routes for responses that were stored: here none is."""

from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import NotFoundError
from serve_app.openai.responses import INSTEAD
from serve_app.replies import Reply


async def _not_stored(request: HttpRequest) -> Reply:
    raise NotFoundError(INSTEAD, param="response_id", code="response_not_stored")


def stored_responses() -> dict[str, dict[str, Handler]]:
    return {
        "/v1/responses/{response_id}": {"GET": _not_stored, "DELETE": _not_stored},
        "/v1/responses/{response_id}/cancel": {"POST": _not_stored},
        "/v1/responses/{response_id}/input_items": {"GET": _not_stored},
    }
