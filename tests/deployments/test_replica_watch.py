"""A replica that accepts connections but never answers is passed over until it does."""

import asyncio
from collections.abc import Sequence

import pytest

from deployments import replica_watch
from deployments.errors import NoReplicaError
from deployments.replica_client import Answer, Call
from deployments.replica_watch import ReplicaWatch
from deployments.replicas import Replica, ReplicaDirectory


class Answered:
    status = 200
    replica = ""

    async def close(self) -> None: ...


class Fleet:
    """Replicas that answer, hang, or refuse, as a test says."""

    def __init__(self, **states: str) -> None:
        self.states = states

    async def probe(self, call: Call, replica: Replica) -> Answer:
        if self.states[replica.id] == "hangs":
            await asyncio.Event().wait()
        if self.states[replica.id] == "refuses":
            raise NoReplicaError
        return Answered()  # type: ignore[return-value]  # the watch does not read it

    async def send(self, call: Call, ranked: Sequence[Replica]) -> Answer:
        raise NotImplementedError("the watch only probes")

    async def close(self) -> None: ...


async def test_replicas_that_do_not_answer_are_passed_over_until_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_watch, "PERIOD_S", 0.01)
    monkeypatch.setattr(replica_watch, "LIMIT_S", 0.02)
    now = 0.0
    directory = ReplicaDirectory(lambda: now)
    directory.replace([Replica(name, f"http://{name}", 100, 16) for name in ("a", "b", "c")])
    fleet = Fleet(a="answers", b="hangs", c="refuses")
    watching = asyncio.create_task(ReplicaWatch(directory, fleet).run())
    try:
        async with asyncio.timeout(5):
            while [replica.id for replica in directory.replicas] != ["a"]:
                await asyncio.sleep(0.01)
        fleet.states.update(b="answers", c="answers")
        async with asyncio.timeout(5):
            while [replica.id for replica in directory.replicas] != ["a", "b", "c"]:
                now += 1
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
