"""The administrators' routes: keys, tenants, and the record of what was done to them."""

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serve_app.document_calls import query_of
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.keyring.settings import AuditRecord, KeyInfo, KeySettings, Named, Tenant, TenantSettings, changed, shown
from serve_app.keyring.watch import Keyring
from serve_app.openai.requests import check, parse_object
from serve_app.replies import Reply, json_reply

MAX_PAGE = 1000
_DIGITS = 15


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    keep_old_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 0.0
    """The old text is good for so many seconds more."""


class Listing(msgspec.Struct):
    """A page: at most `limit` items, behind the one that `after` names."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 100
    after: Annotated[str, Meta(max_length=128)] = ""
    tenant: Tenant | None = None


class AdminRoutes:
    """Thin: each is a call of the store. For keys with the role `admin`."""

    def __init__(self, keyring: Keyring, clock: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._store = keyring.store
        self._clock = clock

    def table(self) -> dict[str, dict[str, Handler]]:
        routes: dict[str, dict[str, Handler]] = {
            "/v1/admin/keys": {"GET": self.list_keys, "POST": self.create_key},
            "/v1/admin/keys/{key_id}": {"GET": self.get_key, "POST": self.change_key, "DELETE": self.revoke_key},
            "/v1/admin/keys/{key_id}/rotate": {"POST": self.rotate_key},
            "/v1/admin/tenants": {"GET": self.list_tenants},
            "/v1/admin/tenants/{name}": {"GET": self.get_tenant, "POST": self.set_tenant},
            "/v1/admin/audit": {"GET": self.audit},
        }
        return {path: {method: _for_admins(handler) for method, handler in methods.items()} for path, methods in routes.items()}

    async def list_keys(self, request: HttpRequest) -> Reply:
        page = _page(request)
        found: list[KeyInfo] = await self._keyring.call(self._store.keys, page.tenant, page.after, page.limit + 1)
        return _list([self._key(info) for info in found], page.limit)

    async def create_key(self, request: HttpRequest) -> Reply:
        settings = check(parse_object(request.body), KeySettings)
        info, text = await self._change(self._store.create, settings, *self._by(request))
        return json_reply({**self._key(info), "key": text})

    async def get_key(self, request: HttpRequest) -> Reply:
        return json_reply(self._key(await self._keyring.call(self._store.get, request.path_params["key_id"])))

    async def change_key(self, request: HttpRequest) -> Reply:
        change = parse_object(request.body)

        def settings(now: KeySettings) -> KeySettings:
            return check(changed(now, change), KeySettings)

        return json_reply(self._key(await self._change(self._store.change, request.path_params["key_id"], settings, *self._by(request))))

    async def rotate_key(self, request: HttpRequest) -> Reply:
        asked = check(parse_object(request.body), Rotation) if request.body else Rotation()
        key_id = request.path_params["key_id"]
        info, text = await self._change(self._store.rotate, key_id, asked.keep_old_s, *self._by(request))
        return json_reply({**self._key(info), "key": text})

    async def revoke_key(self, request: HttpRequest) -> Reply:
        return json_reply(self._key(await self._change(self._store.revoke, request.path_params["key_id"], *self._by(request))))

    async def list_tenants(self, request: HttpRequest) -> Reply:
        page = _page(request)
        found = await self._keyring.call(self._store.tenants, page.after, page.limit + 1)
        return _list([_tenant(name, settings) for name, settings in found], page.limit)

    async def get_tenant(self, request: HttpRequest) -> Reply:
        name = check({"name": request.path_params["name"]}, Named).name
        return json_reply(_tenant(name, await self._keyring.call(self._store.tenant, name)))

    async def set_tenant(self, request: HttpRequest) -> Reply:
        name = check({"name": request.path_params["name"]}, Named).name
        change = parse_object(request.body)

        def settings(now: TenantSettings) -> TenantSettings:
            return check(changed(now, change), TenantSettings)

        return json_reply(_tenant(name, await self._change(self._store.change_tenant, name, settings, *self._by(request))))

    async def audit(self, request: HttpRequest) -> Reply:
        page = _page(request)
        if page.after and not (page.after.isascii() and page.after.isdigit() and len(page.after) <= _DIGITS):
            raise InvalidRequestError("after must be the number of a record.", param="after", code="invalid_value")
        found: list[AuditRecord] = await self._keyring.call(self._store.audit, int(page.after) if page.after else None, page.limit + 1)
        records = [{"id": str(record.seq), "object": "audit_record", **msgspec.structs.asdict(record)} for record in found]
        return _list(records, page.limit)

    async def _change(self, work: Callable[..., Any], *args: Any) -> Any:
        done = await self._keyring.call(work, *args)
        self._keyring.forget()
        return done

    def _by(self, request: HttpRequest) -> tuple[str, float]:
        return f"key:{request.principal.key_id}", self._clock()

    def _key(self, info: KeyInfo) -> dict[str, Any]:
        return shown(info, self._clock())


class NoKeysRoutes:
    """In the place of `AdminRoutes` where there are no keys."""

    def table(self) -> dict[str, dict[str, Handler]]:
        return {"/v1/admin/{path:path}": dict.fromkeys(("GET", "POST", "DELETE"), self.refuse)}

    async def refuse(self, request: HttpRequest) -> Reply:
        raise NotFoundError("There are no keys here: auth.mode in the configuration is none.", code="no_keys")


def _tenant(name: str, settings: TenantSettings) -> dict[str, Any]:
    return {"id": name, "object": "tenant", **msgspec.to_builtins(settings)}


def _for_admins(handler: Handler) -> Handler:
    async def guarded(request: HttpRequest) -> Reply:
        request.principal.require_admin()
        return await handler(request)

    return guarded


def _page(request: HttpRequest) -> Listing:
    """Raises `InvalidRequestError`."""
    asked: dict[str, Any] = {key: value for key, value in query_of(request).items() if key in Listing.__struct_fields__}
    limit = asked.pop("limit", "100")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= _DIGITS):
        raise InvalidRequestError("limit must be a number.", param="limit", code="invalid_value")
    return check({**asked, "limit": int(limit)}, Listing)


def _list(items: list[dict[str, Any]], limit: int) -> Reply:
    """`items`: one more than are shown, if there are more."""
    data = items[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return json_reply({"object": "list", "data": data, **ends, "has_more": len(items) > limit})
