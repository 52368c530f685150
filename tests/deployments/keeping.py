"""Ingresses that have beginnings of prompts kept, over simulated engines."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from deployments.config import SimulatedEngineConfig
from deployments.kept_prefix import Chain, KeptPrefix
from deployments.kept_prefixes import KeptPrefixes, changed
from deployments.replica_client import Call
from deployments.watchers import NoWatcher
from tests.deployments.prefix_fleet import MODEL, SALT, Ingress, Node

BLOCK, BLOCKS = 32, 256
ENGINE = SimulatedEngineConfig(
    block_size=BLOCK, kv_blocks=BLOCKS, prefill_tokens_per_s=50_000, decode_step_s=1e-4, decode_step_per_request_s=0, max_model_len=4096
)
CONTEXT = "What a tenant wants to be kept, whatever others ask. " * 80
OWNER, HOLDER = "namespace", "context"


def chat(*messages: tuple[str, str]) -> Call:
    body = {"model": MODEL.name, "messages": [{"role": role, "content": text} for role, text in messages], "cache_salt": SALT}
    return Call("POST", "/v1/chat/completions", {"content-type": "application/json"}, json.dumps({**body, "max_tokens": 2}).encode())


class Counted(NoWatcher):
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def kept(self, event: str, count: int = 1) -> None:
        self.events[event] += count


class Keeping:
    """What an ingress keeps."""

    def __init__(self, ingress: Ingress) -> None:
        self.ingress = ingress
        self.watcher = Counted()
        self.prefixes = KeptPrefixes(ingress.client, ingress.directory, ingress.routing, time.monotonic, self.watcher)

    async def chain(self, text: str = CONTEXT) -> Chain:
        whole = chat(("system", text), ("user", "?"))
        beginning = changed(whole, messages=[{"role": "system", "content": text}], add_generation_prompt=False)
        measured = await self.prefixes.measure(whole, [beginning])
        assert measured
        chain = self.prefixes.whole_blocks(measured[0], SALT)
        assert chain
        return chain

    async def keep(self, text: str = CONTEXT, for_s: float = 60.0, holder: str = HOLDER) -> KeptPrefix:
        return self.prefixes.keep(OWNER, holder, await self.chain(text), for_s)

    async def found(self, text: str = CONTEXT, question: str = "What is it?") -> tuple[str, int]:
        """Which replica a question goes to, and how many tokens it finds cached."""
        call = chat(("system", text), ("user", question))
        ranking = await self.ingress.routing.rank(call, SALT, len(text), True)
        try:
            answer = await self.ingress.client.send(ranking.call, ranking.replicas, ranking.asking)
            raw = b"".join([chunk async for chunk in answer.chunks()])
            await answer.close()
        finally:
            ranking.end()
        return answer.replica, json.loads(raw)["usage"]["prompt_tokens_details"]["cached_tokens"]

    async def press(self, caches: int) -> None:
        """Fills every replica's cache so many times with what nobody asks again."""
        for number in range(8 * caches):
            texts = [f"{number} {replica} {time.monotonic_ns()} " + "others ask this " * (BLOCKS * BLOCK // 32) for replica in "ab"]
            await asyncio.gather(*(self._send(text, replica) for text, replica in zip(texts, "ab", strict=True)))

    async def _send(self, text: str, name: str) -> None:
        for replica in self.ingress.directory.known:
            if replica.id == name:
                answer = await self.ingress.client.probe(chat(("user", text)), replica)
                async for _ in answer.chunks():
                    pass
                await answer.close()


@asynccontextmanager
async def keeping_of(ingress: Ingress) -> AsyncIterator[Keeping]:
    keeping = Keeping(ingress)
    task = asyncio.create_task(keeping.prefixes.run())
    try:
        yield keeping
    finally:
        task.cancel()


class Keys(list[int]):
    """Of a chain. Knows how often all of them were gone through."""

    passes = 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return super().__iter__()


def holders(nodes: list[Node], prefix: KeptPrefix) -> list[str]:
    return [node.id for node in nodes if prefix.key in node.keeper._prefixes]


def uses(nodes: list[Node]) -> int:
    return sum(prefix.uses for node in nodes for prefix in node.keeper._prefixes.values())
