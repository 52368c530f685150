"""The routes that carry a tenant's own cache: JSON lines out, and in."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cache.entry import Entry
from cache.errors import StoreError
from cache.stores.base import EntryInfo, Filter
from serve_app.cache_lines import LineReader, write_line
from serve_app.cache_routes import for_whole_cache
from serve_app.endpoint import Handler, HttpRequest
from serve_app.errors import ApiError, InvalidRequestError
from serve_app.pipeline import Pipeline
from serve_app.replies import Reply, json_reply
from serve_app.tenants import Caller

LINES_TYPE = "application/x-ndjson"
PAGE = 100
PORTION_BYTES = 4 * 1024 * 1024
"""Of answers that are read from the store at once."""
MAX_LINES = 10_000
"""Of one import: they are encoded meanwhile, some hundred each second."""
IMPORT_BATCH = 64


@dataclass(slots=True)
class Report:
    """What became of an import's lines. Lines are counted from 1."""

    imported: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, number: int, message: str) -> None:
        self.errors.append({"line": number, "message": message})

    def body(self) -> dict[str, Any]:
        return {"object": "cache.import", "imported": self.imported, "errors": self.errors}


class CacheTransferRoutes:
    """Export and import of the caller's namespace, a batch at a time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._cache = pipeline.tiers.cache

    def table(self) -> dict[str, dict[str, Handler]]:
        return for_whole_cache({"/v1/cache/export": {"GET": self.export}, "/v1/cache/import": {"POST": self.import_}})

    def _namespace(self, request: HttpRequest) -> str:
        return self._pipeline.namespaces.of(request.principal.tenant)

    async def export(self, request: HttpRequest) -> Reply:
        """The first lines are read before the reply begins: a store that is down is an error then, not a broken stream."""
        lines = self._lines(self._namespace(request))
        first = await anext(lines, b"")
        return Reply(200, {}, LINES_TYPE, _joined(first, lines), lines.aclose)

    async def _lines(self, namespace: str) -> AsyncGenerator[bytes, None]:
        after = ""
        while page := await self._cache.call("page", namespace, Filter(), after, PAGE):
            for ids in _portions(page):
                entries: list[Entry] = await self._cache.call("get_all", namespace, ids)
                yield b"".join(write_line(entry) for entry in entries)
            after = page[-1].id

    async def import_(self, request: HttpRequest) -> Reply:
        """What can be kept is, in the order of the lines; of the others the report says what is wrong."""
        namespace, lines = self._namespace(request), _numbered(request.body)
        epoch = await self._cache.epoch(namespace)
        pipeline, caller = self._pipeline, Caller(request.id, request.principal)
        guard = pipeline.content.of(caller.tenant) if pipeline.content else None
        reader = LineReader(pipeline.config, pipeline.tiers, caller, namespace, epoch, pipeline.clock(), guard)
        report = Report()
        for start in range(0, len(lines), IMPORT_BATCH):
            await self._import(reader, lines[start : start + IMPORT_BATCH], report)
        return json_reply({**report.body(), "errors": sorted(report.errors, key=lambda error: int(error["line"]))})

    async def _import(self, reader: LineReader, lines: Sequence[tuple[int, bytes]], report: Report) -> None:
        entries: list[tuple[int, Entry]] = []
        for number, raw in lines:
            try:
                entries.append((number, reader.read(raw, uuid.uuid4().hex)))
            except ApiError as error:
                report.refuse(number, error.message)
        ready = await self._embedded(entries)
        try:
            await self._cache.keep([entry for _, entry in ready])
            report.imported += len(ready)
        except StoreError:  # it refused one of them; without any store the epoch would have been an error
            for number, entry in ready:
                await self._keep_alone(number, entry, report)

    async def _keep_alone(self, number: int, entry: Entry, report: Report) -> None:
        try:
            await self._cache.keep([entry])
            report.imported += 1
        except StoreError:
            report.refuse(number, "The store did not keep it.")

    async def _embedded(self, entries: list[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
        """With vectors, where there is a question that the encoder sees whole."""
        texts = [entry.text for _, entry in entries if entry.text is not None]
        vectors = iter(await self._pipeline.embedding.embed(texts) if texts else [])
        with_vectors = []
        for number, entry in entries:
            found = None if entry.text is None else next(vectors)
            with_vectors.append((number, replace(entry, vector=found.vector) if found and found.covered else entry))
        return with_vectors


def _numbered(body: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, counted from 1. Raises `InvalidRequestError`."""
    if body.count(b"\n") > MAX_LINES:
        raise InvalidRequestError(f"The body has more than {MAX_LINES} lines.", code="invalid_value")
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise InvalidRequestError("The body has no lines.", code="invalid_value")
    return lines


def _portions(page: Sequence[EntryInfo]) -> Iterator[list[str]]:
    """Ids of entries that fit in memory together."""
    ids: list[str] = []
    size = 0
    for info in page:
        if ids and size + info.size > PORTION_BYTES:
            yield ids
            ids, size = [], 0
        ids.append(info.id)
        size += info.size
    yield ids


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for each in rest:
        yield each
