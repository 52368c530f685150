"""What a tenant can find out of another with keys on: what it is told, and how long it takes. On the simulated engine.

Times are compared as an attacker would: B sends what A has sent before, and what nobody has, many times in turn, and asks how well the one
is told from the other by its time (the area under the ROC curve, that is Mann and Whitney's U / nm). If the times do not differ, that is
0.5 with a standard deviation of sqrt((2n + 1) / 12n²): with 50 of each it is further than 0.3 away once in five million comparisons. The
same test must see the difference where there is one: within A.
"""

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import WORDS
from tests.e2e.system import ROOT, System, poll, report

ROUNDS = 50
BOUND = 0.3
OFF = {"cache": {"mode": "off"}}


@dataclass
class Answer:
    seconds: float
    """To the first byte of the body."""
    headers: httpx.Headers
    cached: int = 0
    """Tokens of the prompt that the engine says it had."""


@dataclass
class Tenant:
    """A client with a key of its own."""

    http: httpx.Client
    model: str
    key_id: str

    def ask(self, text: str, **fields: Any) -> Answer:
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": 2, "temperature": 0, **fields}
        return self.stream("/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})

    def stream(self, path: str, body: dict[str, Any]) -> Answer:
        began = time.perf_counter()
        with self.http.stream("POST", path, json=body) as response:
            pieces = response.iter_raw()
            first = next(pieces)
            seconds = time.perf_counter() - began
            text = b"".join([first, *pieces]).decode()
        assert response.status_code == 200, text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        usage: dict[str, Any] = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
        return Answer(seconds, response.headers, (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    report("starting scripts/serve with config.sim.yaml and keys")
    system = System(ROOT / "config.sim.yaml", tmp_path_factory.mktemp("keys"), {"auth": {"mode": "keys"}})
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="module")
def admin(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers=system.key("ops", "--role", "admin"), timeout=60) as client:
        yield client


@pytest.fixture
def tenant(system: System, admin: httpx.Client) -> Iterator[Callable[..., Tenant]]:
    """Makes a new tenant, or, where it is named, one more key of it."""
    clients: list[httpx.Client] = []

    def make(name: str = "", **settings: Any) -> Tenant:
        asked = {"tenant": name or f"test-{secrets.token_hex(8)}", **settings}
        made = admin.post("/v1/admin/keys", json=asked).raise_for_status().json()
        headers = {"authorization": f"Bearer {made['key']}"}
        clients.append(httpx.Client(base_url=system.url, headers=headers, timeout=60))
        return Tenant(clients[-1], system.model, made["id"])

    yield make
    for client in clients:
        client.close()


def new_text(words: int) -> str:
    """One that nobody has sent. All of one length have as many tokens, give or take a few."""
    return f"{secrets.token_hex(8)} {' '.join(random.choices(WORDS, k=words))}"


@dataclass
class Times:
    """Of B for what A has sent, of B for what is new, and of A for what it has sent itself."""

    sent: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)


def compared(a: Tenant, b: Tenant, send: Callable[[Tenant, str], Answer], words: int, check: Callable[[Answer, Answer], None]) -> Times:
    """`check` is given B's answer to what A has sent, and A's to what it has sent itself."""
    times = Times()
    for _ in range(ROUNDS):
        sent, new = new_text(words), new_text(words)
        send(a, sent)
        order = [(sent, times.sent), (new, times.new)]
        random.shuffle(order)
        answers = {}
        for text, seconds in order:
            answers[text] = send(b, text)
            seconds.append(answers[text].seconds)
        own = send(a, sent)
        times.own.append(own.seconds)
        check(answers[sent], own)
    return times


def told_apart(first: list[float], second: list[float]) -> float:
    """How often one of the first takes longer than one of the second, ties half: 0.5 if their times are alike."""
    return sum((x > y) + 0.5 * (x == y) for x in first for y in second) / (len(first) * len(second))


def assert_no_channel(times: Times, *, control: bool) -> None:
    """`control`: A has it back sooner, so that the test must see it."""
    across, within = told_apart(times.new, times.sent), told_apart(times.new, times.own)
    report(f"told apart from what is new: what another has sent {across:.2f}, what it has sent itself {within:.2f}")
    assert abs(across - 0.5) < BOUND
    if control:
        assert within > 0.5 + BOUND


def test_times_of_prompts_do_not_tell_what_another_tenant_has_sent(tenant: Callable[..., Tenant]) -> None:
    def check(b: Answer, own: Answer) -> None:
        assert (b.cached, b.headers["x-mygo-predicted-cached-tokens"], b.headers["x-mygo-cache"]) == (0, "0", "bypass")
        assert own.cached > 1000

    def send(who: Tenant, text: str) -> Answer:
        return who.ask(text, **OFF)

    assert_no_channel(compared(tenant(), tenant(), send, 1200, check), control=True)


def test_times_of_questions_do_not_tell_whose_answers_are_kept(tenant: Callable[..., Tenant]) -> None:
    """Exact and semantic tier, and what is remembered of texts in the embedding process."""

    def check(b: Answer, own: Answer) -> None:
        assert (b.headers["x-mygo-cache"], own.headers["x-mygo-cache"]) == ("miss", "exact")
        assert b.cached == 0

    assert_no_channel(compared(tenant(), tenant(), Tenant.ask, 25, check), control=True)


def test_a_request_does_not_wait_for_another_tenants_equal_one(tenant: Callable[..., Tenant]) -> None:
    name = f"test-{secrets.token_hex(8)}"
    a, same, b = tenant(name), tenant(name), tenant()
    question = {"messages": [{"role": "user", "content": new_text(20)}], "max_tokens": 150, "temperature": 0, "ignore_eos": True}
    body = {"model": a.model, "stream": True, **question}
    with a.http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_raw())
        other = b.stream("/v1/chat/completions", {**body, "max_tokens": 150})
        assert other.headers["x-mygo-cache"] == "miss"
    began = time.perf_counter()
    with a.http.stream("POST", "/v1/chat/completions", json={**body, "seed": 1}) as response:
        pieces = response.iter_raw()
        next(pieces)
        follower = same.stream("/v1/chat/completions", {**body, "seed": 1})
        assert follower.headers["x-mygo-cache"] == "exact"  # the same test sees that it waits within a tenant
        assert follower.seconds > 1.0
        for _ in pieces:
            pass
    assert other.seconds < follower.seconds / 2, time.perf_counter() - began


def test_times_of_embeddings_do_not_tell_what_was_embedded(tenant: Callable[..., Tenant], system: System) -> None:
    def send(who: Tenant, text: str) -> Answer:
        return who.stream("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": text})

    assert_no_channel(compared(tenant(), tenant(), send, 25, lambda b, own: None), control=False)


def collection(who: Tenant, group: str | None = None) -> str:
    store = who.http.post("/v1/vector_stores", json={"group": group} if group else {}).raise_for_status().json()["id"]
    documents = [{"id": f"d{number}", "text": " ".join(random.choices(WORDS, k=60))} for number in range(20)]
    who.http.post(f"/v1/vector_stores/{store}/documents", json={"documents": documents}).raise_for_status()
    return str(store)


def test_times_of_searches_do_not_tell_what_was_searched_for(tenant: Callable[..., Tenant]) -> None:
    a, b = tenant(), tenant()
    stores = {who.key_id: collection(who) for who in (a, b)}

    def send(who: Tenant, text: str) -> Answer:
        return who.stream(f"/v1/vector_stores/{stores[who.key_id]}/search", {"query": text})

    # So long a query takes the encoder longer than all else does.
    assert_no_channel(compared(a, b, send, 150, lambda b, own: None), control=True)


def test_groups_are_reached_by_those_keys_that_may(tenant: Callable[..., Tenant], admin: httpx.Client) -> None:
    names, group = [f"test-{secrets.token_hex(8)}" for _ in range(2)], f"g-{secrets.token_hex(4)}"
    for name in names:
        admin.post(f"/v1/admin/tenants/{name}", json={"groups": [group]}).raise_for_status()
    a, b, narrow, stranger = tenant(names[0]), tenant(names[1]), tenant(names[1], groups=[]), tenant(groups=[group])
    store = collection(a, group)
    path = f"/v1/vector_stores/{store}/search"
    assert [who.http.post(path, json={"query": "anchor"}).status_code for who in (a, b, narrow, stranger)] == [200, 200, 404, 404]
    chat = {"model": a.model, "messages": [{"role": "user", "content": new_text(5)}], "max_tokens": 2, **OFF}
    chat["retrieval"] = {"vector_store_ids": [store], "top_k": 5}
    first, second = [who.http.post("/v1/chat/completions", json=chat).raise_for_status() for who in (a, b)]
    cached = [each.json()["usage"]["prompt_tokens_details"]["cached_tokens"] for each in (first, second)]
    assert cached[0] == 0 < cached[1]  # the group's documents are computed once for its members
    assert narrow.http.post("/v1/chat/completions", json=chat).status_code == 404
    assert narrow.http.get("/v1/vector_stores").json()["data"] == []
    admin.post(f"/v1/admin/tenants/{names[1]}", json={"groups": []}).raise_for_status()
    poll("the end of its membership", 5, lambda: b.http.post(path, json={"query": "anchor"}).status_code == 404)


def test_strangers_are_told_nothing_of_replicas(system: System, admin: httpx.Client) -> None:
    assert system.http.get("/readyz").json() == {"status": "ready"}
    assert len(admin.get("/readyz").json()["replicas"]) >= 2
    for path in ("/metrics", "/v1/models", "/v1/admin/keys", "/-/routes", "/-/healthz", "/docs"):
        answer = system.http.get(path)
        assert answer.status_code in (401, 404) or len(answer.content) < 20, path
