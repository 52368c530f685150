"""Listens to every replica: what it holds, what it is doing, and that it is there at all.

A replica that is stuck still accepts connections, so silence counts: one that has not reported for `LIMIT_S` is passed over.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import msgspec

from cache.prefix.router import Router
from deployments.errors import DeploymentError
from deployments.gossip import Gossip
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import INGRESS_HEADER, SAY_PATH, WATCH_PATH, Report, ReportReader
from deployments.turns import Turnstile
from deployments.warming import Warmer

log = logging.getLogger("ray.serve")

LIMIT_S = 2.0
RETRY_S = 0.25
LOOK_S = 0.1
"""How often the directory is looked at."""
TELL_S = 0.2
"""How often the other ingresses are told what is new, if it is not urgent."""
MIN_TELL_S = 0.005
"""What is urgent and comes together is told together."""
RELAYS = 2
"""Replicas that pass on the same message."""


class FleetWatch:
    """One for each ingress. `name` is this ingress's among all."""

    def __init__(
        self,
        directory: ReplicaDirectory,
        client: ReplicaClient,
        router: Router,
        warmer: Warmer,
        turnstile: Turnstile,
        gossip: Gossip,
        name: str,
    ) -> None:
        self._directory = directory
        self._client = client
        self._router = router
        self._warmer = warmer
        self._turnstile = turnstile
        self._name = name
        self._gossip = gossip
        self._others: dict[str, int] = {}
        """By replica: ingresses that listen to it beside this one."""
        self._warmed: set[str] = set()
        """Replicas that are not new."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Of replicas that are being warmed, or whose prefixes are being rebuilt elsewhere."""
        self._listening: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell_others())
        try:
            while True:
                self._follow(self._directory.known)
                await asyncio.sleep(LOOK_S)
        finally:
            for task in (telling, *self._listening.values(), *self._tasks.values()):
                task.cancel()

    def _follow(self, known: tuple[Replica, ...]) -> None:
        ids = {replica.id for replica in known}
        for gone in self._listening.keys() - ids:
            self._listening.pop(gone).cancel()
            self._warmed.discard(gone)
        for gone in self._router.replicas - ids:  # those too that came and went between two looks
            self._router.forget(gone)
            self._others.pop(gone, None)
        for replica in known:
            if replica.id not in self._listening:
                self._listening[replica.id] = asyncio.create_task(self._listen(replica))

    async def _tell_others(self) -> None:
        urgent = self._gossip.urgent
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await urgent.wait()
            urgent.clear()
            try:
                if message := self._gossip.message():
                    await asyncio.gather(*(self._tell(replica, message) for replica in self._directory.replicas[:RELAYS]))
            except Exception:
                log.exception("the other ingresses could not be told")
            await asyncio.sleep(MIN_TELL_S)

    async def _tell(self, replica: Replica, message: bytes) -> None:
        with contextlib.suppress(DeploymentError, TimeoutError):  # what is lost is told again
            async with asyncio.timeout(TELL_S):
                await (await self._client.probe(Call("POST", SAY_PATH, {INGRESS_HEADER: self._name}, message), replica)).close()

    async def _listen(self, replica: Replica) -> None:
        while True:
            try:
                async with aclosing(self._reports(replica)) as reports:
                    async for report in reports:
                        self._apply(replica, report)
            except (DeploymentError, TimeoutError, msgspec.DecodeError) as error:
                log.warning("a replica does not report", extra={"replica": replica.id, "error": type(error).__name__})
            except Exception:
                log.exception("a replica's report could not be used", extra={"replica": replica.id})
            self._directory.silence(replica.id)
            self._router.apply(replica.id, [], is_snapshot=True)
            await asyncio.sleep(RETRY_S)

    async def _reports(self, replica: Replica) -> AsyncGenerator[Report, None]:
        reader = ReportReader()
        async with asyncio.timeout(LIMIT_S) as limit:
            answer = await self._client.probe(Call("GET", WATCH_PATH, {INGRESS_HEADER: self._name}), replica)
            try:
                async for chunk in answer.chunks():
                    for report in reader.feed(chunk):
                        yield report
                        await asyncio.sleep(0)  # a snapshot is long, and others wait for their turn
                    limit.reschedule(asyncio.get_running_loop().time() + LIMIT_S)
            finally:
                await answer.close()

    def _apply(self, replica: Replica, report: Report) -> None:
        if report.is_snapshot or report.changes:
            self._router.apply(replica.id, report.changes, report.is_snapshot)
        activity, ledger = report.activity, self._router.ledger(replica.id)
        ledger.told(activity.others_backlog_s, activity.others_waiting, activity.others_decoding, self._router.clock())
        self._others[replica.id] = report.others
        self._gossip.others = max(self._others.values())
        for message in report.said:
            self._hear(message)
        self._turnstile.wake()
        if activity.draining:
            self._directory.silence(replica.id)
            self._begin(replica, self._warmer.rebuild(replica, self._directory.replicas) if replica.id in self._warmed else None)
            self._warmed.discard(replica.id)
        elif replica.id in self._warmed:
            self._directory.resume(replica.id)
        else:
            self._meet(replica)

    def _hear(self, message: bytes) -> None:
        try:
            self._gossip.hear(message)
        except (msgspec.DecodeError, TypeError, ValueError):  # of another version, while an application is updated in place
            log.debug("what another ingress says cannot be understood")

    def _meet(self, replica: Replica) -> None:
        """A replica that is new, or was away, takes requests once it is warm."""
        if self._warmer and len(self._directory.known) > 1:
            self._directory.silence(replica.id)
            if replica.id not in self._tasks:
                self._begin(replica, self._warm(replica))
        else:
            self._warmed.add(replica.id)
            self._directory.resume(replica.id)

    async def _warm(self, replica: Replica) -> None:
        try:
            await self._warmer.warm(replica)
        finally:  # warm or not, it takes requests now
            self._warmed.add(replica.id)

    def _begin(self, replica: Replica, work: Coroutine[Any, Any, None] | None) -> None:
        if work is None:
            return
        task = self._tasks[replica.id] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(replica.id, None))
