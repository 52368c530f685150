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
from deployments.peers import FRESH_S
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica, ReplicaDirectory
from deployments.reports import INGRESS_HEADER, QUEUE_PATH, WATCH_PATH, Report, ReportReader
from deployments.turns import Turnstile
from deployments.warming import Warmer

log = logging.getLogger("ray.serve")

LIMIT_S = 2.0
RETRY_S = 0.25
LOOK_S = 0.1
"""How often the directory is looked at."""


class FleetWatch:
    """One for each ingress. `name` is this ingress's among all."""

    def __init__(
        self, directory: ReplicaDirectory, client: ReplicaClient, router: Router, warmer: Warmer, turnstile: Turnstile, name: str
    ) -> None:
        self._directory = directory
        self._client = client
        self._router = router
        self._warmer = warmer
        self._turnstile = turnstile
        self._name = name
        self._queued = 0.0
        """What was told last of this ingress's queue."""
        self._queue_told_at = float("-inf")
        self._warmed: set[str] = set()
        """Replicas that are not new."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Of replicas that are being warmed, or whose prefixes are being rebuilt elsewhere."""
        self._telling: set[asyncio.Task[None]] = set()
        self._listening: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while True:
                self._follow(self._directory.known)
                self._tell_of_queue()
                await asyncio.sleep(LOOK_S)
        finally:
            for task in (*self._listening.values(), *self._tasks.values(), *self._telling):
                task.cancel()

    def _follow(self, known: tuple[Replica, ...]) -> None:
        ids = {replica.id for replica in known}
        for gone in self._listening.keys() - ids:
            self._listening.pop(gone).cancel()
            self._warmed.discard(gone)
        for gone in self._router.replicas - ids:  # those too that came and went between two looks
            self._router.forget(gone)
            self._turnstile.peers.forget(gone)
        for replica in known:
            if replica.id not in self._listening:
                self._listening[replica.id] = asyncio.create_task(self._listen(replica))

    def _tell_of_queue(self) -> None:
        """Every replica, which tells the other ingresses: while something waits, now and then, and once when nothing does any more."""
        weight, now = self._turnstile.weight, self._router.clock()
        is_news = (weight > 0) != (self._queued > 0)
        if is_news or (weight > 0 and now - self._queue_told_at >= FRESH_S / 3):
            self._queued, self._queue_told_at = weight, now
            for replica in self._directory.replicas:
                task = asyncio.create_task(self._tell(replica, weight))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _tell(self, replica: Replica, weight: float) -> None:
        call = Call("POST", QUEUE_PATH, {INGRESS_HEADER: self._name}, msgspec.json.encode(weight))
        with contextlib.suppress(DeploymentError, TimeoutError):  # it is told again soon
            async with asyncio.timeout(LIMIT_S):
                await (await self._client.probe(call, replica)).close()

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
        ledger.others_backlog_s, ledger.others_at = activity.others_backlog_s, self._router.clock()
        ledger.others_waiting = activity.others_waiting
        ledger.others_decoding = activity.others_decoding
        self._turnstile.peers.told(replica.id, activity.others_queued, activity.others_sent)
        self._turnstile.wake()
        if activity.draining:
            self._directory.silence(replica.id)
            self._begin(replica, self._warmer.rebuild(replica, self._directory.replicas) if replica.id in self._warmed else None)
            self._warmed.discard(replica.id)
        elif replica.id in self._warmed:
            self._directory.resume(replica.id)
        else:
            self._meet(replica)

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
