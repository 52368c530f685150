"""ModelCache's protocol, as its unchanged clients speak it."""

import json
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.e2e.system import System, poll


def body(**fields: Any) -> dict[str, Any]:
    return {"scope": {"model": "CODEGPT-1008"}, **fields}


QUESTION = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who are you?"}]
INSERT = body(type="insert", chat_info=[{"query": QUESTION, "answer": "A cache."}])
QUERY = body(type="query", query=QUESTION)


@pytest.mark.parametrize("twice", [False, True], ids=["object", "string"])
def test_a_client_inserts_queries_and_removes(http: httpx.Client, twice: bool) -> None:
    def send(request: dict[str, Any]) -> dict[str, Any]:
        answer = http.post("/modelcache", json=json.dumps(request) if twice else request)
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    assert (miss := send(QUERY))["cacheHit"] is False
    assert (miss["errorCode"], miss["hit_query"], miss["answer"]) == (0, "", "")
    assert send(INSERT)["writeStatus"] == "success"
    hit = poll("a hit", 10, lambda: found if (found := send(QUERY))["cacheHit"] else None)
    assert (hit["hit_query"], hit["answer"]) == ("user: Who are you?", "A cache.")
    assert hit["delta_time"].endswith("s")
    removed = send(body(type="remove", remove_type="truncate_by_model"))
    assert removed["response"]["status"] == "success"
    assert send(QUERY)["cacheHit"] is False


def test_the_websocket_answers_by_request_id(system: System, tenant: dict[str, str]) -> None:
    with connect(f"{system.url.replace('http', 'ws')}/modelcache", additional_headers=tenant) as socket:
        for number in range(3):
            socket.send(json.dumps({"requestId": f"r{number}", "payload": QUERY}))
        answers = [json.loads(socket.recv(timeout=30)) for _ in range(3)]
    assert sorted(answer["requestId"] for answer in answers) == ["r0", "r1", "r2"]
    assert all(answer["result"]["errorCode"] == 0 for answer in answers)
