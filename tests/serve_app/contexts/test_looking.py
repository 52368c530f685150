"""What an ingress does about contexts that others have made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deployments.kept_prefixes import KeptPrefixes
from deployments.replica_client import Answer, Call, ReplicaClient
from deployments.replicas import Replica
from serve_app.contexts.service import Contexts
from tests.deployments.prefix_fleet import ingress_of
from tests.serve_app.contexts.house import LIMIT, House


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
        paused = other.routing._renderer._client = Paused(other.client)
        kept = KeptPrefixes(other.client, other.directory, other.routing, asyncio.get_running_loop().time)
        second = Contexts(house.contexts._open_store, kept, LIMIT, house.clock)
        yield second, paused
        await second.close()


async def test_what_is_deleted_while_it_is_measured_is_not_kept(house: House) -> None:
    made = await house.make()
    async with second_of(house) as (second, paused):
        looking = asyncio.create_task(second.look())
        await asyncio.wait_for(paused.asked.wait(), 5)
        second.forget(made["id"])
        paused.may.set()
        await looking
        assert second.kept._prefixes == {}
        assert second._keys == {}
