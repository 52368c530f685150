"""ModelCache's REST routes."""

from urllib.parse import parse_qsl

from starlette.datastructures import Headers

from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import ApiError
from serve_app.modelcache import bodies
from serve_app.modelcache.bodies import Response
from serve_app.modelcache.service import ModelCacheService
from serve_app.replies import Reply, json_reply
from serve_app.tenants import Authenticator, tenant_of

PATH = "/modelcache"
WELCOME = b"hello, modelcache!"


class ModelCacheRoutes:
    """Thin: each is one call of the service."""

    def __init__(self, service: ModelCacheService, authenticator: Authenticator) -> None:
        self._service = service
        self._authenticator = authenticator

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
        try:
            tenant = tenant_in(request.headers, self._authenticator)
        except ApiError as error:
            return _reply(bodies.bad_request(error.message))
        return _reply(await self._service.handle(tenant, body, request.id))


def tenant_in(headers: Headers, authenticator: Authenticator) -> str | None:
    """The tenant that the cache knows the request's sender by. Raises `InvalidRequestError` for a name that is none."""
    tenant = tenant_of(headers)
    authenticator.namespace(tenant)
    return tenant


def _reply(response: Response) -> Reply:
    status, body = response
    return json_reply(body, status)
