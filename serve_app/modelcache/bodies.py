"""The bodies of all answers, in the shapes that ModelCache's clients read.

| code | HTTP | when |
|---|---|---|
| 0   | 200 | done |
| 102 | 200 | `type` is missing or unknown |
| 103 | 200 | the request cannot be read |
| 105, 305 | 200 | query, insert: the model is blocked here |
| 201 | 200 | query: the cache failed |
| 301 | 200 | insert: the cache failed, or the rows cannot be read, or there is nothing in them |
| 400 | 400 | the body or frame is no JSON |
| 401 | 200 | remove: the cache failed, or the request cannot be read |
| 402 | 200 | remove: there is no such model |
| 500 | 500 | a defect of ours |
| 502 | 200 | register failed |

Not given: 101 (Flask and FastAPI of 2024, for what is 400 since 2025), 202, 302 and 303 (failures between ModelCache's
layers, which are one here).
"""

from collections.abc import Sequence
from typing import Any

from serve_app.modelcache.backend import Hit

Body = dict[str, Any]
Response = tuple[int, Body]
"""The HTTP status, and the body."""

TYPES = ("query", "insert", "remove", "register")
UNKNOWN_TYPE = f"type exception, should one of {list(TYPES)}"
REMOVE_ERROR = "The cache remove error"
NO_COLLECTION = "model collection not found, please check!"


def query_answered(hit: Hit | None, seconds: float) -> Response:
    """`cache_id` and `similarity` are ours: with the first, `delete_by_id` can be used."""
    if hit is None:
        return 200, _query_body(0, "", _delta(seconds))
    found = {"cacheHit": True, "hit_query": hit.query, "answer": hit.answer}
    return 200, {**_query_body(0, "", _delta(seconds)), **found, "cache_id": hit.id, "similarity": float(hit.similarity)}


def query_failed(words: str, seconds: float) -> Response:
    return 200, _query_body(201, words, _delta(seconds))


def unknown_type() -> Response:
    return 200, _query_body(102, UNKNOWN_TYPE)


def unreadable(words: str) -> Response:
    return 200, _query_body(103, words)


def query_blocked(model: str) -> Response:
    return 200, _query_body(105, _blocked(model))


def refused(status: int, words: str) -> Response:
    """Of who may not use the cache, by an HTTP status."""
    return status, bad_request(words)[1]


def bad_request(words: str = "bad request") -> Response:
    return 400, _query_body(400, words)


def internal_error() -> Response:
    return 500, _query_body(500, "The server had an error. The request id names it in the logs.")


def inserted(ids: Sequence[str | None]) -> Response:
    """`ids` is ours: one for each row of the request, null for one that was skipped."""
    return 200, {"errorCode": 0, "errorDesc": "", "writeStatus": "success", "ids": list(ids)}


def insert_failed(words: str) -> Response:
    return 200, {"errorCode": 301, "errorDesc": words, "writeStatus": "exception"}


def insert_blocked(model: str) -> Response:
    return 200, {"errorCode": 305, "errorDesc": _blocked(model), "writeStatus": ""}


def deleted(count: int) -> Response:
    """The stores' names are those of ModelCache's, whatever stands behind this one."""
    return _removed({"status": "success", "milvus": _count(count), "mysql": _count(count)})


def truncated(count: int | None) -> Response:
    """The stores are called `VectorDB` and `ScalarDB` since 2025, `milvus` and `mysql` before: clients of either find theirs."""
    vectors, rows = (NO_COLLECTION, "unexecuted") if count is None else ("rebuild", _count(count))
    status = "failed" if count is None else "success"
    return _removed({"status": status, "VectorDB": vectors, "ScalarDB": rows, "milvus": vectors, "mysql": rows})


def remove_failed(words: str = "") -> Response:
    """Its status is called `removeStatus`, unlike that of the others."""
    return 200, {"errorCode": 401, "errorDesc": words, "response": REMOVE_ERROR, "removeStatus": "exception"}


def registered(*, created: bool) -> Response:
    response = "create_success" if created else "already_exists"
    return 200, {"errorCode": 0, "errorDesc": "", "response": response, "writeStatus": "success"}


def register_failed(words: str) -> Response:
    return 200, {"errorCode": 502, "errorDesc": "", "response": words, "writeStatus": "exception"}


def _query_body(code: int, words: str, delta_time: str | int = 0) -> Body:
    return {"errorCode": code, "errorDesc": words, "cacheHit": False, "delta_time": delta_time, "hit_query": "", "answer": ""}


def _removed(response: dict[str, str]) -> Response:
    if response["status"] == "success":
        return 200, {"errorCode": 0, "errorDesc": "", "response": response, "writeStatus": "success"}
    return 200, {"errorCode": 402, "errorDesc": "", "response": response, "writeStatus": "exception"}


def _delta(seconds: float) -> str:
    return f"{round(max(seconds, 0.0), 2)}s"


def _count(count: int) -> str:
    return f"delete_count: {count}"


def _blocked(model: str) -> str:
    """The one text that repeats what the client sent: it is the protocol's."""
    return f"model: {model} in blacklist"
