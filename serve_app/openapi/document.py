"""Makes the OpenAPI document of an application's routes. Types that check bodies are the schemas: nothing is written twice."""

import inspect
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from serve_app.keyring.settings import Tenant
from serve_app.openapi.operation import JSON, Body, Content, Operation, Schema
from serve_app.openapi.operations import MESSAGES, MODELCACHE, OPERATIONS
from serve_app.tenants import MAX_WAIT_HEADER, TENANT_HEADER

REF = "#/components/schemas/{name}"
HIDDEN = frozenset({"/v1/admin/{path}", "/v1/caching/{path}"})
"""Where there are no keys, or no kept contexts, these only say so."""
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_ABOUT = """An OpenAI-compatible gateway with a cache that tenants share and no tenant sees another's part of.

Errors have OpenAI's shape (ModelCache's and Anthropic's on their own routes).
What is no HTTP at all never reaches the application: the proxy before it
answers that, by a page of its own. `HEAD` is allowed wherever `GET` is; `/modelcache` is a WebSocket, too."""
_MEANINGS = {
    400: "The request is not as it must be; `param` names the field.",
    401: "A key is needed, or this one is not good.",
    403: "The key may not do this.",
    404: "There is no such thing here, or it is another tenant's.",
    408: "The body did not arrive.",
    413: "The body is too long.",
    415: "The body is compressed.",
    429: "The tenant, or the key, has had what it may have.",
    500: "A defect; the request id names it in the logs.",
    502: "The engine failed.",
    503: "Not now: too much waits already, or a part of the application does not answer.",
    504: "It took too long.",
}
_OF_ALL = (400, 408, 413, 415, 500)
_BEHIND_THE_DOOR = (503,)
_WITH_KEYS = (401, 403)
_HEADERS = {401: "www-authenticate", 429: "retry-after", 503: "retry-after"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_MODELCACHE_ERROR: Schema = {
    "type": "object",
    "properties": {"errorCode": {"type": "integer"}, "errorDesc": {"type": "string"}},
    "required": ["errorCode", "errorDesc"],
}
_MESSAGE_ERROR: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["type", "message"],
        },
    },
    "required": ["type", "error"],
}
_ERRORS: Mapping[str, Schema] = {"Error": _ERROR, MODELCACHE: _MODELCACHE_ERROR, MESSAGES: _MESSAGE_ERROR}
_PARAMETERS: Mapping[str, Schema] = {
    "Tenant": {"name": TENANT_HEADER, "description": "Whose the request is, where there are no keys."},
    "MaxWait": {
        "name": MAX_WAIT_HEADER,
        "description": "Seconds that it is worth waiting for an engine.",
        "schema": {"type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,6})?$"},
    },
    "CacheControl": {
        "name": "cache-control",
        "description": "`no-cache`: as the cache mode `refresh`; `no-store`: as `off`.",
        "schema": {"type": "string"},
    },
}
_SCHEMES: Mapping[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def document(routes: Iterable[BaseRoute], needs_no_key: Container[str], *, keys: bool) -> dict[str, Any]:
    """`keys`: whether requests need one, but for the paths of `needs_no_key`. Raises `KeyError` for a route that `OPERATIONS` lacks."""
    paths: dict[str, dict[str, Any]] = {}
    schemas = _Schemas()
    for method, path in described(routes):
        is_open = path in needs_no_key
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, OPERATIONS[method, path], schemas, keys=keys, is_open=is_open)
    parameters = {name: {"in": "header", "required": False, **each} for name, each in _PARAMETERS.items()}
    parameters["Tenant"]["schema"] = _portable(msgspec.json.schema(Tenant))
    components = {
        "schemas": {**_ERRORS, **schemas.components()},
        "responses": {f"{error}{status}": _refusal(status, error) for status in _MEANINGS for error in _ERRORS},
        "parameters": parameters,
        **({"securitySchemes": dict(_SCHEMES)} if keys else {}),
    }
    info = {
        "title": "MyGO Serve",
        "version": version("mygo"),
        "description": _ABOUT,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def described(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path, as clients write it, of each route that the document is about."""
    for route in routes:
        if isinstance(route, Route):
            path = _PARAMETER.sub(r"{\1}", route.path)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                if path not in HIDDEN:
                    yield method, path


def _operation(method: str, path: str, operation: Operation, schemas: "_Schemas", *, keys: bool, is_open: bool) -> dict[str, Any]:
    statuses = {*_OF_ALL, *operation.refusals, *(() if is_open else _BEHIND_THE_DOOR), *(_WITH_KEYS if keys and not is_open else ())}
    answers: dict[int, Content] = {**({200: operation.answer} if operation.answer else {}), **operation.others}
    responses: dict[str, Any] = {str(status): _answer(status, content) for status, content in answers.items()}
    refusals = sorted(statuses - answers.keys())
    responses |= {str(status): {"$ref": f"#/components/responses/{operation.error}{status}"} for status in refusals}
    named = (*(() if keys or is_open else ("Tenant",)), *operation.headers)
    parameters = [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _PARAMETER.findall(path)
        ),
        *(each for kind in operation.query for each in _query(kind)),
        *({"$ref": f"#/components/parameters/{name}"} for name in named),
    ]
    words = re.findall(r"\w+", path)
    made: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *words]).replace("_v1_", "_"),
        "tags": [words[1] if words[0] == "v1" else "operations"],
        "summary": operation.summary,
        "description": operation.about,
        "parameters": parameters,
        "requestBody": _body(operation.body, schemas) if operation.body else None,
        "responses": responses,
        "security": [{name: []} for name in _SCHEMES] if keys and not is_open else [] if keys else None,
    }
    return {name: each for name, each in made.items() if each or (name == "security" and each is not None)}


def _answer(status: int, content: Content) -> dict[str, Any]:
    described = "As asked." if status == 200 else _MEANINGS[status]
    return {"description": described, "content": {media: {"schema": schema} for media, schema in content.items()}}


def _refusal(status: int, error: str) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _MEANINGS[status], "content": {JSON: {"schema": {"$ref": REF.format(name=error)}}}}
    if status in _HEADERS:
        made["headers"] = {_HEADERS[status]: {"schema": {"type": "string"}}}
    return made


def _body(body: Body, schemas: "_Schemas") -> dict[str, Any]:
    schema = dict(body.schema) if isinstance(body.schema, Mapping) else schemas.of(body)
    if body.media not in (JSON, "multipart/form-data"):  # each line is of that schema, not the body
        schema = {"type": "string", "description": f"Lines of `{schema['$ref'].rpartition('/')[2]}`."}
    made: dict[str, Any] = {"description": body.about, "required": body.required, "content": {body.media: {"schema": schema}}}
    return {name: each for name, each in made.items() if each != ""}


def _query(kind: type) -> Iterator[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=REF)
    for name, schema in components[kind.__name__]["properties"].items():
        # What is not given is null in the type; nobody can give a null in a query.
        given = next((each for each in schema.get("anyOf", ()) if each != {"type": "null"}), schema)
        default = {"default": schema["default"]} if schema.get("default") not in (None, "") else {}
        shown = {key: each for key, each in given.items() if key != "default"}
        yield {"name": name, "in": "query", "required": False, "schema": _portable({**shown, **default})}


class _Schemas:
    """The types that bodies are checked by, as components."""

    def __init__(self) -> None:
        self._kinds: list[type] = []
        self._changes: dict[str, type] = {}

    def of(self, body: Body) -> dict[str, Any]:
        if body.schema not in self._kinds:
            self._kinds.append(body.schema)
        name = body.schema.__name__
        if body.partial:
            name += "Change"
            self._changes[name] = body.schema
        return {"$ref": REF.format(name=name)}

    def components(self) -> dict[str, Any]:
        _, made = msgspec.json.schema_components(self._kinds, ref_template=REF)
        for name, kind in self._changes.items():
            whole = made[kind.__name__]
            properties = {key: {part: each[part] for part in each if part != "default"} for key, each in whole["properties"].items()}
            made[name] = {**whole, "title": name, "properties": properties, "required": []}
        fixed: dict[str, Any] = _portable(made)
        return fixed


def _portable(value: Any) -> Any:
    """Expressions in the dialect of JSON schema, whose `$` is what Python's `\\Z` is; descriptions without the source's indentation."""
    if isinstance(value, dict):
        return {key: _fixed(key, each) for key, each in value.items()}
    return [_portable(each) for each in value] if isinstance(value, list) else value


def _fixed(key: str, value: Any) -> Any:
    if key == "pattern" and isinstance(value, str):
        return value.replace(r"\Z", "$")
    return inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _portable(value)
