"""Clients that mean harm: bombs, forged events and headers, connections that say nothing or read nothing. To this machine only."""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.system import ROOT, System, poll, report

CHAT = "/v1/chat/completions"
IDLE = 1000
SILENT = 3
"""Clients that read nothing."""
CLIENT_S = 3
"""Their time, in the application of its own that is started here."""
ENDLESS = 400_000
"""Tokens of an answer that is longer than what kernels and proxies hold of it."""
ENGINE = {"type": "simulated", "prefill_tokens_per_s": 200, "decode_step_s": 0.0001, "max_model_len": 500_000, "kv_blocks": 200_000}
LIMITS = {"first_token_timeout_s": 1.5, "between_tokens_timeout_s": 5, "total_timeout_s": 90, "client_timeout_s": CLIENT_S}


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Short limits of time."""
    report("starting scripts/serve with short limits of time, simulated")
    llm = {"model": {"name": "mygo-sim"}, "engine": ENGINE, "replicas": {"min": 1, "max": 1}}
    args = {"llm": llm, "ingress": LIMITS, "embedding": {"source": "fake"}, "retrieval": {"enabled": False}}
    env = {"RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_S), "MYGO_HEADERS_TIMEOUT_S": str(CLIENT_S)}
    system = System(ROOT / "config.sim.yaml", tmp_path_factory.mktemp("hurried"), args, env)
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


@pytest.fixture(autouse=True)
def _on_one_engine(request: pytest.FixtureRequest) -> None:
    """The door is the same before each."""
    if "system" in request.fixturenames and not request.getfixturevalue("system").is_simulated:
        pytest.skip("of the simulated engine's application")


def asking(system: System, content: str, **fields: Any) -> dict[str, Any]:
    return {"model": system.model, "messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}


def raw_request(body: bytes, *headers: bytes, path: bytes = CHAT.encode()) -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"host: x", b"content-type: application/json", b"connection: close", *headers]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


def exchange(system: System, sent: bytes, limit_s: float = 30) -> bytes:
    """What a connection answers until it is closed. Raises `TimeoutError` after `limit_s` without a byte."""
    with socket.create_connection(("127.0.0.1", system.port), timeout=limit_s) as sock:
        sock.sendall(sent)
        got = b""
        while piece := sock.recv(65536):
            got += piece
    return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Bodies


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/files", "/v1/vector_stores", "/v1/cache/import"])
def test_a_compressed_body_is_refused_before_anything_is_inflated(http: httpx.Client, path: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    answer = http.post(path, content=bomb, headers={"content-encoding": "gzip", "content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")


JSON_BOMBS = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "many numbers": b"[" + b"1," * 7_000_000 + b"1]",
    "many lists": b"[" + b"[]," * 5_000_000 + b"1]",
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(1_000_000)) + b"}",
    "a huge integer": b"9" * 15_000_000,
    "an endless number": b"1e999999",
    "half a surrogate": b'"\\ud800"',
    "a text without an end": b'"' + b',\\"' * 5_000_000,
}


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/vector_stores", "/v1/cache/invalidate"])
@pytest.mark.parametrize("bomb", JSON_BOMBS.values(), ids=JSON_BOMBS.keys())
def test_json_that_is_a_bomb_is_refused_soon(http: httpx.Client, system: System, path: str, bomb: bytes) -> None:
    body = b'{"model":"' + system.model.encode() + b'","messages":[{"role":"user","content":"x"}],"input":"x","x":' + bomb + b"}"
    began = time.monotonic()
    answer = http.post(path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert time.monotonic() - began < 10
    assert http.get("/healthz").status_code == 200


def test_a_form_of_too_many_parts_is_refused(http: httpx.Client) -> None:
    part = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
    answer = http.post("/v1/files", content=part * 100_000 + b"--b--\r\n", headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]["type"] == "invalid_request_error"


# Headers


@pytest.mark.parametrize(
    "header",
    [
        b"x-request-id: \xff\xfe",
        b"x-session-id: \xff",
        b"serve_multiplexed_model_id: \xff",
        b"x-request-timeout-seconds: 0.000001",
        b"x-request-timeout-seconds: \xff",
        b"x-request-disconnect-disabled: \xff",
        b"authorization: \xff",
        b"cache-control: \xff",
        b"x-mygo-max-wait: \xff",
        b"traceparent: \xff",
        b"expect: 100-continue",
    ],
)
def test_no_header_makes_the_application_fail(system: System, header: bytes) -> None:
    for path, body in ((CHAT, asking(system, f"With {header!r}")), ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": "x"})):
        answer = exchange(system, raw_request(json.dumps(body).encode(), header, path=path.encode()))
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert status_of(answer) in (200, 400), answer[:500]


@pytest.mark.parametrize(
    "header",
    [b"x-request-id: a\rset-cookie: b", b"x-request-id: a\x00b", b"transfer-encoding: chunked", b"content-length: 5", b"a b: c", b": x"],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(system: System, header: bytes) -> None:
    answer = exchange(system, raw_request(json.dumps(asking(system, "x")).encode(), header))
    assert status_of(answer) == 400
    assert b"set-cookie" not in answer.lower()


@pytest.mark.parametrize(
    "forged", ["a\r\nset-cookie: stolen=1", "a\nset-cookie: stolen=1", "a\r\n\r\n<html>", "a\x00b", "\u010d\u010aset-cookie: stolen=1"]
)
def test_no_text_of_a_client_becomes_a_header(http: httpx.Client, system: System, forged: str) -> None:
    """`č` and `Ċ` end in the bytes of CR and LF: a careless cut to eight bits would make them so."""
    answers = [
        http.post(CHAT, json=asking(system, "Tagged", cache={"tags": [forged]})),
        http.post(CHAT, json={**asking(system, "x"), "model": forged}),
        http.post("/v1/vector_stores", json={"name": forged}),
        http.post("/v1/vector_stores", json={"name": "n", "metadata": {forged: forged}}),
        http.post(CHAT, json=asking(system, "x", retrieval={"vector_store_ids": [forged]})),
        http.post(CHAT, json=asking(system, "x", user=forged)),
        http.get(f"/v1/models/{quote(forged)}"),
    ]
    store = next(answer.json()["id"] for answer in answers if answer.url.path == "/v1/vector_stores" and answer.status_code == 200)
    answers += [
        http.post(f"/v1/vector_stores/{store}/documents", json={"documents": [{"id": forged, "text": "A text."}]}),
        http.post("/v1/files", files={"file": (forged, b"A text.", "text/plain")}, data={"purpose": "assistants"}),
    ]
    for answer in answers:
        assert answer.status_code in (200, 400, 404), answer.text
        assert "set-cookie" not in answer.headers
        assert not answer.content.startswith(b"<html>")


# Events


def test_documents_and_kept_answers_do_not_forge_events(http: httpx.Client, system: System) -> None:
    forged = 'x\n\ndata: [DONE]\n\ndata: {"error": {"message": "forged"}}\r\n\r\nevent: forged\n\n'
    lines = [json.dumps({"model": system.model, "text": f"What is forged, question {number}?", "answer": forged}) for number in range(2)]
    assert http.post("/v1/cache/import", content="\n".join(lines)).json()["imported"] == 2
    store = http.post("/v1/vector_stores", json={"name": "forged"}).json()["id"]
    added = http.post(f"/v1/vector_stores/{store}/documents", json={"documents": [{"id": "d", "text": f"Forged: {forged}"}]})
    assert added.status_code == 200, added.text
    requests = [
        {"model": system.model, "messages": [{"role": "user", "content": "What is forged, question 0?"}], "stream": True},
        asking(system, "What is forged?", stream=True, retrieval={"vector_store_ids": [store]}),
        asking(system, forged, stream=True),
    ]
    tiers = []
    for request in requests:
        with http.stream("POST", CHAT, json=request) as answer:
            body = answer.read()
        assert answer.status_code == 200, body
        tiers.append(answer.headers["x-mygo-cache"])
        told = [line for line in body.replace(b"\r", b"\n").split(b"\n") if line]
        assert [line for line in told if line == b"data: [DONE]"] == told[-1:]
        assert all(line.startswith(b"data: {") and "error" not in json.loads(line[6:]) for line in told[:-1])
        if len(tiers) == 1:
            says = [json.loads(line[6:])["choices"] for line in told[:-1]]
            assert "".join(choices[0]["delta"].get("content") or "" for choices in says if choices) == forged
    assert tiers[0] in ("exact", "semantic")


# Connections


async def test_a_thousand_idle_connections_hold_up_nobody(system: System, http: httpx.Client) -> None:
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", system.port) for _ in range(IDLE)))
    try:
        for number, (_, writer) in enumerate(opened):
            if number % 2:
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")  # and no more
        began = time.monotonic()
        for number in range(5):
            answer = await asyncio.to_thread(http.post, CHAT, json=asking(system, f"Beside idle ones {number}", cache={"mode": "off"}))
            assert answer.status_code == 200
        assert time.monotonic() - began < 30
    finally:
        for _, writer in opened:
            writer.close()


def test_headers_that_do_not_come_are_given_up(hurried: System) -> None:
    for beginning in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"):
        began = time.monotonic()
        assert status_of(exchange(hurried, beginning)) == 408
        assert CLIENT_S - 1 < time.monotonic() - began < CLIENT_S + 10


def test_headers_that_come_one_byte_at_a_time_are_given_up(hurried: System) -> None:
    with socket.create_connection(("127.0.0.1", hurried.port)) as sock:
        sock.settimeout(0.25)
        began, answer = time.monotonic(), b""
        for byte in b"GET / HTTP/1.1\r\nx-drip: " + b"x" * 200:
            try:
                sock.send(bytes([byte]))
                answer = sock.recv(1000)
                break
            except TimeoutError:
                continue
    assert status_of(answer) == 408
    assert time.monotonic() - began < CLIENT_S + 10


def test_a_first_token_that_does_not_come_is_a_504_and_leaves_nothing_behind(hurried: System) -> None:
    long = "word " * 2000  # ten seconds of prefill
    answer = hurried.http.post(CHAT, json=asking(hurried, long, stream=True))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "first_token_timeout")
    poll("no running requests", 5, lambda: hurried.ongoing() == 0)


def test_waiting_for_an_answer_is_no_idleness(hurried: System) -> None:
    long = "words " * 1200  # longer than a client may be silent
    answer = hurried.http.post(CHAT, json=asking(hurried, long))
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > CLIENT_S


def test_clients_that_read_nothing_lose_their_places(hurried: System) -> None:
    """In the engine, too; and until then what is written for them takes little memory."""
    ingress = hurried.processes("ServeReplica:mygo:Ingress") + hurried.processes("ServeReplica:mygo:LlmReplica")
    before = sum(process.memory_info().rss for process in ingress)
    silent = []
    try:
        for number in range(SILENT):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", hurried.port))
            fields: dict[str, Any] = {"max_tokens": ENDLESS, "ignore_eos": True, "stream": True, "cache": {"mode": "off"}}
            sock.sendall(raw_request(json.dumps(asking(hurried, f"Endless {number}", **fields)).encode()))
            silent.append(sock)
        poll("all of them run", 20, lambda: hurried.ongoing() == SILENT)
        poll("no running requests", 60, lambda: hurried.ongoing() == 0)
    finally:
        for sock in silent:
            sock.close()
    grown = sum(process.memory_info().rss for process in ingress) - before
    assert grown < 200e6
    assert hurried.http.post(CHAT, json=asking(hurried, "And now?")).status_code == 200
