"""ModelCache's REST routes."""

from urllib.parse import parse_qsl

from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import ApiError
from serve_app.modelcache import bodies
from serve_app.modelcache.bodies import Response
from serve_app.modelcache.service import ModelCacheService
from serve_app.replies import Reply, json_reply
from serve_app.tenants import Principal

PATH = "/modelcache"
WELCOME = b"hello, modelcache!"


class ModelCacheRoutes:
    """Thin: each is one call of the service."""

    def __init__(self, service: ModelCacheService) -> None:
        self._service = service

    def table(self) -> dict[str, dict[str, Handler]]:
        multimodal: dict[str, Handler] = {"GET": self.multimodal, "POST": self.multimodal}
        return {PATH: {"GET": self.get, "POST": self.post}, "/welcome": {"GET": self.welcome}, "/multicache": multimodal}

    async def post(self, request: HttpRequest) -> Reply:
        return await self._answer(request, request.body)

    async def get(self, request: HttpRequest) -> Reply:
        """The request is in `?data=`. The Flask servers had this route, though it could read nothing."""
        data = next((value for name, value in parse_qsl(request.query) if name == "data"), "")
        return await self._answer(request, data.encode())

    async def welcome(self, request: HttpRequest) -> Reply:
        return Reply(200, {}, "text/plain; charset=utf-8", WELCOME)

    async def multimodal(self, request: HttpRequest) -> Reply:
        return _reply(bodies.bad_request("The multimodal cache is not available here; /modelcache keeps texts."))

    async def _answer(self, request: HttpRequest, body: bytes) -> Reply:
        if refused := refusal_of(request.principal):
            return _reply(refused)
        return _reply(await self._service.handle(request.principal.tenant, body, request.id))


def refusal_of(principal: Principal) -> Response | None:
    """What a key is told that may not use a cache: this protocol has nothing else."""
    return None if principal.cache == "on" else bodies.refused(403, "This key may not use the semantic cache.")


def refuse(error: ApiError, request_id: str) -> Reply:
    """What does not reach this protocol's handlers, in its own shape."""
    status, body = bodies.refused(error.status, error.message)
    return json_reply(body, status, dict(error.headers))


def _reply(response: Response) -> Reply:
    status, body = response
    return json_reply(body, status)
