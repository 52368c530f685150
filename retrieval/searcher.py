"""Searches: what was found before, or what is nearest to the query, with its texts; at once, or in two steps."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial

from cache.embedders.base import Embedder
from cache.entry import Vector
from retrieval.collection import Collection
from retrieval.config import RetrievalConfig
from retrieval.documents import Begun, Chunk, SearchHit, SearchResult
from retrieval.errors import StorageError, UnknownStoreError
from retrieval.indexes.base import Found
from retrieval.result_cache import Counts, ResultCache
from retrieval.scopes import Caller, Scopes, namespace_of
from retrieval.search import CollectionCache
from retrieval.texts import Texts
from retrieval.tickets import Tickets
from retrieval.view import Asked, View

TRIES = 3
QUICK_S = 0.002
"""Of a search that ends so soon after its first stage nobody need know the provisional result."""


class _EndedError(Exception):
    """A text has been deleted since the version that is searched."""


@dataclass(frozen=True, slots=True)
class _Query:
    """One query of a search. `text` and `vector` are of it, `view` of the whole search."""

    view: View
    asked: Asked
    text: str
    vector: Vector


class Searcher:
    """Thread-safe. Searches raise `UnknownStoreError`, `StorageError`, `BusyError`, `cache.errors.EmbedderError` and `VectorIndexError`."""

    def __init__(
        self, search: CollectionCache, texts: Texts, scopes: Scopes, embedder: Embedder, config: RetrievalConfig, clock: Callable[[], float]
    ) -> None:
        """`clock` gives seconds, and never goes back."""
        self._search = search
        self._texts = texts
        self._scopes = scopes
        self._embedder = embedder
        self._results = ResultCache(config.result_cache, clock) if config.result_cache.enabled else None
        self._tickets = Tickets(clock)

    @property
    def counts(self) -> Counts:
        """Of the result cache."""
        return Counts() if self._results is None else self._results.counts

    def search(self, caller: Caller, store_ids: Sequence[str], asked: Asked) -> SearchResult:
        """All of it sees one version of each collection: the newest at the time of the call, or a newer one."""
        for _ in range(TRIES):
            try:
                return self._searched(self._view(caller, store_ids), asked)
            except _EndedError:
                continue
        raise StorageError("what is searched is deleted faster than it can be read")

    def begin(self, caller: Caller, store_ids: Sequence[str], asked: Asked) -> Begun:
        """The final result if it is known, or there at once; else a provisional one, and the search goes on for some seconds."""
        try:
            return self._begun(namespace_of(caller), self._view(caller, store_ids), asked)
        except _EndedError:
            return Begun(self.search(caller, store_ids, asked))

    def end(self, namespace: str, ticket: str) -> SearchResult:
        """Waits for a search that was begun. Raises `UnknownTicketError` for one that is not known here and for this namespace."""
        try:
            return self._tickets.end(namespace, ticket)
        except _EndedError:
            raise StorageError("what was found has been deleted for long") from None

    def close(self) -> None:
        self._tickets.close()

    def _view(self, caller: Caller, store_ids: Sequence[str]) -> View:
        scopes: dict[str, str] = {}
        collections: dict[str, Collection] = {}
        for store_id in dict.fromkeys(store_ids):
            try:
                scopes[store_id] = self._scopes.of(caller, store_id)
                collections[store_id] = self._search.open(scopes[store_id], store_id)
            except UnknownStoreError as error:
                raise UnknownStoreError(str(error), store_id if len(store_ids) > 1 else "") from None
        return View(collections, scopes)

    def _searched(self, view: View, asked: Asked) -> SearchResult:
        hits = {text: self._exact(view, asked, text) for text in asked.queries}
        new = [text for text, known in hits.items() if known is None]
        for text, vector in zip(new, self._embedder.embed(new) if new else (), strict=True):
            query = _Query(view, asked, text, vector)
            near = self._near(query)
            hits[text] = self._finished(query, view.search(vector, asked)) if near is None else near
        return _result(view, asked, [hits[text] or [] for text in asked.queries])

    def _begun(self, namespace: str, view: View, asked: Asked) -> Begun:
        text = asked.queries[0]
        if len(asked.queries) > 1:
            return Begun(self._searched(view, asked))
        if (known := self._exact(view, asked, text)) is not None:
            return Begun(_result(view, asked, [known]))
        query = _Query(view, asked, text, self._embedder.embed([text])[0])
        if (near := self._near(query)) is not None:
            return Begun(_result(view, asked, [near]))
        return self._in_two_steps(namespace, query)

    def _in_two_steps(self, namespace: str, query: _Query) -> Begun:
        view, asked = query.view, query.asked
        stages = view.stages(query.vector, asked)
        first = next(stages)
        finish = partial(self._final_result, query)
        opened = self._tickets.begin(namespace, stages, first, finish)
        if opened is None:
            return Begun(finish([first, *stages][-1]))
        ticket, run = opened
        try:
            wait([run.future], QUICK_S)
            if not run.future.done():
                provisional = _result(view, asked, [[hit for _, hit in self._read(view, first, asked.top_k)]])
                return Begun(provisional, ticket)
            final = finish(run.found())
        except BaseException:
            self._tickets.drop(ticket)
            raise
        self._tickets.drop(ticket)
        return Begun(final)

    def _final_result(self, query: _Query, found: list[Found]) -> SearchResult:
        return _result(query.view, query.asked, [self._finished(query, found)])

    def _finished(self, query: _Query, found: list[Found]) -> list[SearchHit]:
        """The hits, which are remembered."""
        read = self._read(query.view, found, query.asked.top_k)
        if self._results is not None:
            self._results.put(query.view.key(query.asked), query.text, query.vector, [each for each, _ in read])
        return [hit for _, hit in read]

    def _exact(self, view: View, asked: Asked, text: str) -> list[SearchHit] | None:
        return None if self._results is None else self._kept(view, self._results.exact(view.key(asked), text))

    def _near(self, query: _Query) -> list[SearchHit] | None:
        if self._results is None:
            return None
        return self._kept(query.view, self._results.near(query.view.key(query.asked), query.text, query.vector))

    def _kept(self, view: View, found: list[Found] | None) -> list[SearchHit] | None:
        """None also if a text is gone: who searches anew takes a newer version."""
        try:
            return None if found is None else [hit for _, hit in self._read(view, found, len(found))]
        except _EndedError:
            return None

    def _read(self, view: View, found: list[Found], top_k: int) -> list[tuple[Found, SearchHit]]:
        """The `top_k` best with their texts. A chunk that several collections hold is one; their others may share its id alone."""
        distinct: dict[tuple[str, str], tuple[Found, SearchHit]] = {}
        place = 0
        while place < len(found) and len(distinct) < top_k:
            end = _with_equals(found, place + top_k)
            for each, hit in self._hits(view, found[place:end]):
                distinct.setdefault((hit.chunk.id, hit.chunk.text), (each, hit))
            place = end
        return sorted(distinct.values(), key=lambda pair: _rank(pair[1]))[:top_k]

    def _hits(self, view: View, found: list[Found]) -> list[tuple[Found, SearchHit]]:
        chunks: dict[int, Chunk] = {}
        for store_id, collection in view.collections.items():
            if rows := collection.members.having(each.row for each in found):
                chunks |= self._texts.of(view.scopes[store_id], store_id, collection, rows)
        if any(each.row not in chunks for each in found):
            raise _EndedError
        return [(each, SearchHit(chunks[each.row], each.score)) for each in found]


def _with_equals(found: list[Found], end: int) -> int:
    """The end of those that share the score of the one before `end`: among them the chunk's id decides."""
    while 0 < end < len(found) and found[end].score == found[end - 1].score:
        end += 1
    return min(end, len(found))


def _result(view: View, asked: Asked, hits: Sequence[Sequence[SearchHit]]) -> SearchResult:
    """Of each query's hits. The query that a chunk is nearest to counts."""
    distinct: dict[tuple[str, str], SearchHit] = {}
    for hit in sorted((hit for each in hits for hit in each), key=_rank):
        distinct.setdefault((hit.chunk.id, hit.chunk.text), hit)
    return SearchResult(list(distinct.values())[: asked.top_k], view.versions, dict(view.scopes))


def _rank(hit: SearchHit) -> tuple[float, str]:
    return -hit.score, hit.chunk.id
