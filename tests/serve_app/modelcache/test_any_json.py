"""Whatever comes in, a well-formed answer with a known code comes out."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.modelcache.bodies import Body, Response
from tests.serve_app.modelcache.asking import Server

HTTP_OF = {0: 200, 102: 200, 103: 200, 105: 200, 301: 200, 305: 200, 400: 400, 401: 200, 402: 200, 502: 200}
QUERY_KEYS = {"errorCode", "errorDesc", "cacheHit", "delta_time", "hit_query", "answer"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["gpt-4.1", "gpt_4.1", "blocked", "", " "])
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["system", "user", "assistant"]) | json_values,
            "content": st.text(max_size=5) | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()})) | json_values,
            "extra": json_values,
        },
    )
    | json_values,
    max_size=3,
)
requests = st.fixed_dictionaries(
    {"type": st.sampled_from(["query", "insert", "remove", "register", "detox"]) | json_values},
    optional={
        "scope": st.fixed_dictionaries({"model": names | json_values}) | json_values,
        "query": messages | json_values,
        "chat_info": st.lists(st.fixed_dictionaries({"query": messages, "answer": st.text() | json_values}), max_size=3) | json_values,
        "remove_type": st.sampled_from(["delete_by_id", "truncate_by_model"]) | json_values,
        "id_list": st.lists(st.sampled_from(["id-1", 1]) | json_values, max_size=3) | json_values,
    },
)


def well_formed(response: Response) -> Body:
    status, body = response
    assert status == HTTP_OF[body["errorCode"]]
    assert type(body["errorCode"]) is int
    assert type(body["errorDesc"]) is str
    if "cacheHit" in body:
        assert body.keys() - {"cache_id", "similarity"} == QUERY_KEYS
        assert [type(body[key]) for key in ("cacheHit", "hit_query", "answer")] == [bool, str, str]
        assert type(body["delta_time"]) is (str if body["errorCode"] == 0 else int)
    elif body["errorCode"] == 401:
        assert body.keys() == {"errorCode", "errorDesc", "response", "removeStatus"}
    else:
        assert body.keys() - {"ids", "response"} == {"errorCode", "errorDesc", "writeStatus"}
    json.dumps(body).encode()
    return body


async def answers(payloads: list[Any]) -> None:
    server = Server(blocked=("blocked",))
    for payload in payloads:
        as_it_is = well_formed(await server.service.handle("t", payload))
        as_a_body = well_formed(await server.service.handle("t", json.dumps(payload).encode()))
        in_a_string = well_formed(await server.service.handle("t", json.dumps(payload)))
        if as_it_is["errorCode"] not in (0, 402) and as_a_body["errorCode"] != 400:  # a number may be beyond what JSON readers take
            assert as_it_is == as_a_body == in_a_string
    await server.service.close()


@given(st.lists(json_values | requests, max_size=4))
def test_any_json(payloads: list[Any]) -> None:
    asyncio.run(answers(payloads))


@given(st.binary(max_size=40))
def test_any_bytes(body: bytes) -> None:
    async def ask() -> None:
        well_formed(await Server().service.handle(None, body))

    asyncio.run(ask())
