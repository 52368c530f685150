"""Caches that a test breaks or holds up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_app.modelcache.backend import Hit, Message, QueryRecord
from serve_app.modelcache.fake import MemoryBackend
from tests.serve_app.fakes import Fault
from tests.serve_app.modelcache.asking import Server


@dataclass
class FaultyBackend(MemoryBackend):
    """Each call meets `fault` first, each batch of the log `log_fault`."""

    fault: Fault = field(default_factory=Fault)
    log_fault: Fault = field(default_factory=Fault)

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        await self.fault.strike()
        return await super().query(tenant, model, messages)

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        await self.fault.strike()
        return await super().insert(tenant, model, items)

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        await self.fault.strike()
        return await super().delete(tenant, model, ids)

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        await self.fault.strike()
        return await super().truncate(tenant, model)

    async def register(self, tenant: str | None, model: str) -> bool:
        await self.fault.strike()
        return await super().register(tenant, model)

    async def log(self, records: Sequence[QueryRecord]) -> None:
        await self.log_fault.strike()
        await super().log(records)


@dataclass
class GatedBackend(MemoryBackend):
    """A query waits until its text is let through."""

    asked: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = {}

    def open(self, text: str) -> None:
        self._gate(text).set()

    def _gate(self, text: str) -> asyncio.Event:
        return self._gates.setdefault(text, asyncio.Event())

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        text = messages[-1]["content"]
        self.asked.append(text)
        try:
            await self._gate(text).wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return await super().query(tenant, model, messages)


def faulty(error: Exception | None = None, *, hangs: bool = False) -> Server:
    return Server(FaultyBackend(fault=Fault(error, hangs)))
