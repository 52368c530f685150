"""An ingress that keeps contexts, over simulated engines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from deployments.config import SimulatedEngineConfig
from deployments.kept_prefixes import KeptPrefixes
from deployments.replica_client import Answer, Call, ReplicaClient
from deployments.replicas import Replica
from serve_app.config import load_config
from serve_app.contexts.service import Contexts
from serve_app.contexts.store import ContextStore, contexts_url, open_contexts
from serve_app.services import DocumentService
from tests.deployments.prefix_fleet import MODEL, Ingress, Node, ingress_of, nodes_of
from tests.serve_app.clients import client_of
from tests.serve_app.fakes import World

ENGINE = SimulatedEngineConfig(prefill_tokens_per_s=1e6, decode_step_s=1e-4, decode_step_per_request_s=0, kv_blocks=512)
BLOCK = ENGINE.block_size
RULES = "You answer questions about the house rules, which are long and do not change. " * 20
SYSTEM = {"role": "system", "content": RULES}
ADA, BOB = {"x-mygo-tenant": "ada"}, {"x-mygo-tenant": "bob"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
LIMIT = 1_600


@dataclass
class House:
    """An ingress over two replicas."""

    nodes: list[Node]
    ingress: Ingress
    contexts: Contexts
    http: httpx.AsyncClient
    now: float = 1_000_000.0

    def clock(self) -> float:
        return self.now

    async def make(self, text: str = RULES, headers: dict[str, str] = ADA, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "system", "content": text}]
        answer = await self.http.post("/v1/caching", json={"model": MODEL.name, "messages": messages, **fields}, headers=headers)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def ask(self, begins_with: str, question: str = "Which?", headers: dict[str, str] = ADA, **fields: Any) -> httpx.Response:
        """`begins_with`: the content of the message with the role `cache`."""
        return await self.chat([{"role": "cache", "content": begins_with}, {"role": "user", "content": question}], headers, **fields)

    async def chat(self, messages: list[Any], headers: dict[str, str] = ADA, **fields: Any) -> httpx.Response:
        body = {"model": MODEL.name, "messages": messages, "max_tokens": 4, "cache": {"mode": "off"}, **fields}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    def kept(self) -> int:
        return sum(len(node.keeper._prefixes) for node in self.nodes)

    def knows_kept(self) -> int:
        """What the ingress knows to be kept."""
        return sum(prefix.state == "kept" for prefix in self.contexts.kept._prefixes.values())


class NotRendering:
    """A client of engines that render nothing in time of what has `within`."""

    def __init__(self, client: ReplicaClient, within: bytes = b"") -> None:
        self._client = client
        self._within = within

    async def probe(self, call: Call, replica: Replica) -> Answer:
        if self._within in call.body:
            raise TimeoutError
        return await self._client.probe(call, replica)


@asynccontextmanager
async def house_of(
    directory: Path,
    tokens: int | None = LIMIT,
    open_store: Callable[[], ContextStore] | None = None,
    documents: DocumentService | None = None,
    **sections: Any,
) -> AsyncIterator[House]:
    config = load_config({"llm": {"model": {"name": MODEL.name}}, **sections, "data_dir": str(directory)})
    world = World(config)
    async with nodes_of("a", "b", config=ENGINE) as nodes, ingress_of(*nodes) as ingress:
        kept = KeptPrefixes(ingress.client, ingress.directory, ingress.routing, asyncio.get_running_loop().time)
        house: House | None = None
        open_store = open_store or partial(open_contexts, contexts_url(config))
        contexts = Contexts(open_store, kept, tokens, lambda: house.now if house else 1_000_000.0, config.llm.model.adapters)
        world.pipeline = replace(
            world.pipeline,
            documents=documents,
            directory=ingress.directory,
            routing=ingress.routing,
            client=ingress.client,
            contexts=contexts,
        )
        async with client_of(world, clock=contexts._clock) as http:
            house = House(nodes, ingress, contexts, http)
            running = asyncio.create_task(contexts.run())
            yield house
            running.cancel()
            await contexts.close()


def cached(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


def house_namespace(contexts: Contexts) -> str:
    """Of the only tenant that has something kept, or had."""
    return next((hold.owner for prefix in contexts.kept._prefixes.values() for hold in prefix.holds.values()), "")


def marked(question: str = "Which?", text: str = RULES, **control: Any) -> list[dict[str, Any]]:
    part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **control}}
    return [{"role": "system", "content": [part]}, {"role": "user", "content": question}]
