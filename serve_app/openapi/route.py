"""The route that gives the document."""

from collections.abc import Container, Sequence
from functools import cached_property

import msgspec
from starlette.routing import BaseRoute

from serve_app.endpoint import HttpRequest
from serve_app.openapi.document import document
from serve_app.openapi.operation import JSON
from serve_app.replies import Reply

PATH = "/openapi.json"


class DocumentRoute:
    """`routes`: the application's, which may still grow; the document is made when it is first asked for."""

    def __init__(self, routes: Sequence[BaseRoute], needs_no_key: Container[str], *, keys: bool) -> None:
        self._routes = routes
        self._needs_no_key = needs_no_key
        self._keys = keys

    async def get(self, request: HttpRequest) -> Reply:
        return Reply(200, {}, JSON, self._document)

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(document(self._routes, self._needs_no_key, keys=self._keys))
