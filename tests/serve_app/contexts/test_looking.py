"""What an ingress does about contexts that others have made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from deployments.kept_prefixes import KeptPrefixes
from deployments.replica_client import Answer, Call, ReplicaClient
from deployments.replicas import Replica
from serve_app.contexts.service import Contexts
from serve_app.openai.requests import parse_chat
from tests.deployments.prefix_fleet import MODEL, ingress_of
from tests.deployments.servers import eventually
from tests.serve_app.contexts.house import ADA, LIMIT, RULES, House, house_namespace


class Paused:
    """A client of engines that render nothing before they may."""

    def __init__(self, client: ReplicaClient) -> None:
        self._client = client
        self.asked = asyncio.Event()
        self.may = asyncio.Event()

    async def probe(self, call: Call, replica: Replica) -> Answer:
        self.asked.set()
        await self.may.wait()
        return await self._client.probe(call, replica)


@asynccontextmanager
async def second_of(house: House) -> AsyncIterator[tuple[Contexts, Paused]]:
    """What another ingress knows of contexts when it looks, and what it renders with."""
    async with ingress_of(*house.nodes, name="two") as other:
        paused: Any = Paused(other.client)
        other.routing._renderer._client = paused
        kept = KeptPrefixes(other.client, other.directory, other.routing, asyncio.get_running_loop().time)
        second = Contexts(house.contexts._open_store, kept, LIMIT, house.clock)
        yield second, paused
        await second.close()


async def over(contexts: Contexts) -> None:
    """What it has seen is taken over."""
    await eventually(lambda: contexts._taking_over is not None and contexts._taking_over.done())


async def test_what_is_deleted_while_it_is_measured_is_not_kept(house: House) -> None:
    made = await house.make()
    async with second_of(house) as (second, paused):
        looking = asyncio.create_task(second.look())
        await asyncio.wait_for(paused.asked.wait(), 5)
        second.forget(made["id"])
        paused.may.set()
        await looking
        await over(second)
        assert second.kept._prefixes == {}
        assert second._keys == {}


async def test_while_contexts_are_measured_others_are_looked_after(house: House) -> None:
    deleted, used = await house.make(), await house.make(f"Other {RULES}", ttl="1m")
    namespace = house_namespace(house.contexts)
    async with second_of(house) as (second, paused):
        await asyncio.wait_for(second.look(), 1)
        await asyncio.wait_for(paused.asked.wait(), 1)
        await house.http.delete(f"/v1/caching/{deleted['id']}", headers=ADA)
        messages = [{"role": "cache", "content": f"cache_id={used['id']};reset_ttl=100"}, {"role": "user", "content": "Which?"}]
        await second.begun(parse_chat(msgspec.json.encode({"model": MODEL.name, "messages": messages})), namespace)
        await asyncio.wait_for(second.look(), 1)
        assert (await house.http.get(f"/v1/caching/{used['id']}", headers=ADA)).json()["expired_at"] == house.now + 100
        assert second._ends.keys() == {used["id"]}
        paused.may.set()
        await over(second)
        assert second._keys.keys() == {used["id"]}


async def test_what_goes_wrong_when_contexts_are_taken_over_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await house.make()
    async with second_of(house) as (second, paused):
        paused.may.set()
        with monkeypatch.context() as patched:
            patched.setattr(second, "measured", None)
            await second.look()
            await over(second)
        assert second._keys == {}
        await second.look()
        await over(second)
        assert second._keys.keys() == {made["id"]}
