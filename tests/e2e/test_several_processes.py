"""Two ingress processes and two before the stores, which are MariaDB and Milvus, and keys: `config.production.yaml`, simulated engines."""

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cache.databases import MARIADB, empty_mariadb, milvus_url
from tests.e2e.system import ROOT, System, poll, report

SIMULATED = {"model": {"name": "mygo-sim"}, "engine": {"type": "simulated"}, "replicas": {"min": 2, "max": 2}}
AT_ONCE = 200
LATE_S = 1.0
"""How long after an invalidation another process may still give what it has in memory."""
REVOKED_S = 5.0
"""How long after its revocation a key may still be good somewhere."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    empty_mariadb().close()
    env = {"MYGO_DATABASE_URL": MARIADB, "MYGO_VECTOR_URL": milvus_url()}
    report("starting scripts/serve with config.production.yaml, simulated")
    system = System(ROOT / "config.production.yaml", tmp_path_factory.mktemp("production"), {"llm": SIMULATED}, env)
    try:
        system.wait_ready()
        system.http.headers.update(system.key("ops", "--role", "admin"))
        yield system
    finally:
        system.stop()


@pytest.fixture
def tenant(system: System) -> dict[str, str]:
    """The headers of a tenant's client."""
    return system.key(f"test-{secrets.token_hex(8)}")


def question(text: str) -> dict[str, Any]:
    return {"model": "mygo-sim", "messages": [{"role": "user", "content": text}], "max_tokens": 64, "temperature": 0}


def ask(system: System, tenant: dict[str, str], text: str) -> httpx.Response:
    """On a connection of its own, so that either ingress may get it."""
    answer = httpx.post(f"{system.url}/v1/chat/completions", json=question(text), headers=tenant, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def ingresses(system: System) -> set[str]:
    """Those that have answered chats, by Ray's name of the replica."""
    metrics = system.http.get("/metrics").text
    lines = [line for line in metrics.splitlines() if line.startswith("mygo_requests_total{") and "chat/completions" in line]
    return {found[1] for line in lines if (found := re.search(r'replica="([^"]*)"', line))}


async def test_equal_requests_of_all_processes_are_computed_once(system: System, tenant: dict[str, str]) -> None:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=system.url, headers=tenant, timeout=60, limits=limits) as client:
        for number in range(3):
            body = question(f"What is told {AT_ONCE} times, round {number}?")
            answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(AT_ONCE)))
            assert {answer.status_code for answer in answers} == {200}
            counts = Counter(answer.headers["x-mygo-cache"] for answer in answers)
            assert counts == {"miss": 1, "exact": AT_ONCE - 1}
            assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    poll("both ingresses have answered", 30, lambda: len(ingresses(system)) == 2)


def test_what_one_process_invalidates_ends_for_the_other(system: System, tenant: dict[str, str]) -> None:
    text = "What is kept by two?"
    ask(system, tenant, text)
    old = poll("it is kept", 10, lambda: ask(system, tenant, text).headers.get("x-mygo-entry"))
    for _ in range(30):  # both have it in memory
        assert ask(system, tenant, text).headers["x-mygo-entry"] == old
    assert httpx.post(f"{system.url}/v1/cache/invalidate", json={"all": True}, headers=tenant).status_code == 200
    ended = time.monotonic()
    while time.monotonic() < ended + 3 * LATE_S:
        began = time.monotonic()
        answer = ask(system, tenant, text)
        assert began < ended + LATE_S or answer.headers.get("x-mygo-entry") != old, f"{began - ended:.2f} s after the invalidation"


def test_what_one_process_keeps_the_other_finds(system: System, tenant: dict[str, str]) -> None:
    texts = [f"What is a replica of kind {number}?" for number in range(20)]
    for text in texts:
        assert ask(system, tenant, text).headers["x-mygo-cache"] == "miss"
    poll("all are found", 20, lambda: all(ask(system, tenant, text).headers["x-mygo-cache"] == "exact" for text in texts))
    reworded = [text.replace("What is", "what's").removesuffix("?") for text in texts]
    assert {ask(system, tenant, text).headers["x-mygo-cache"] for text in reworded} == {"semantic"}


def test_a_revoked_key_is_let_in_nowhere(system: System) -> None:
    headers = system.key("acme")
    key_id = headers["authorization"].split("_")[1]
    text = "What is a key?"
    for _ in range(30):  # both know it
        ask(system, headers, text)
    system.mygo("keys", "revoke", key_id)
    revoked = time.monotonic()
    while time.monotonic() < revoked + REVOKED_S + 2:
        began = time.monotonic()
        status = httpx.post(f"{system.url}/v1/chat/completions", json=question(text), headers=headers, timeout=60).status_code
        assert began < revoked + REVOKED_S or status == 401, f"{status}, {began - revoked:.2f} s after the revocation"
    assert [each["action"] for each in json.loads(system.mygo("keys", "audit", "--json", "--limit", "1"))] == ["key.revoke"]


def test_an_administrator_makes_keys_over_http_and_both_ingresses_know_them(system: System) -> None:
    made = system.http.post("/v1/admin/keys", json={"tenant": "acme", "models": ["mygo-sim"]}).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    assert {ask(system, headers, "What is new?").status_code for _ in range(10)} == {200}
    assert httpx.get(f"{system.url}/v1/admin/keys", headers=headers).status_code == 403
    assert httpx.get(f"{system.url}/v1/models").status_code == 401
    assert system.http.delete(f"/v1/admin/keys/{made['id']}").json()["state"] == "revoked"


def test_keys_stand_in_no_log_and_no_table(system: System) -> None:
    headers = system.key("acme")
    ask(system, headers, "What is in the logs?")
    secret = headers["authorization"].split("_")[2]
    assert secret not in system.session_logs()
    assert secret not in system.log.read_text(errors="replace")
