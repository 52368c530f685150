"""Notices replicas that are stuck: the kernel still accepts their connections, but nobody answers."""

import asyncio
import logging

from deployments.errors import DeploymentError
from deployments.private_app import LOAD_PATH
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory

log = logging.getLogger("ray.serve")

PERIOD_S = 1.0
LIMIT_S = 2.0
"""A replica that takes longer to say what it is doing is passed over until it answers again."""


class ReplicaWatch:
    """Asks every replica for its load, again and again, and suspends those that do not answer."""

    def __init__(self, directory: ReplicaDirectory, client: ReplicaClient) -> None:
        self._directory = directory
        self._client = client
        self._checking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        while True:
            for replica in self._directory.known:
                if replica.id not in self._checking:
                    self._checking[replica.id] = asyncio.create_task(self._check(replica))
            await asyncio.sleep(PERIOD_S)

    async def _check(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                answer = await self._client.probe(Call("GET", LOAD_PATH, {}), replica)
                await answer.close()
        except (DeploymentError, TimeoutError):
            log.warning("a replica does not answer", extra={"replica": replica.id})
            self._directory.suspend(replica.id)
        finally:
            del self._checking[replica.id]
