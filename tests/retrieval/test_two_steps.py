"""A search whose provisional result is used while it goes on."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.errors import VectorIndexError
from retrieval import tickets as tickets_module
from retrieval.config import RetrievalConfig
from retrieval.documents import Begun, Document, SearchRequest, SearchResult
from retrieval.errors import QueryError, StorageError, UnknownTicketError
from retrieval.indexes.base import Found
from retrieval.scopes import Scopes
from retrieval.service import RetrievalService
from retrieval.store import DocumentStore
from retrieval.tickets import TICKET_S, Run, Tickets
from tests.retrieval.searching import shrink, slow_stages, source_of
from tests.retrieval.tiers import Encoder, QuickEncoder


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def encoder() -> Encoder:
    return QuickEncoder()


@pytest.fixture
def searches(url: str, clock: Clock, encoder: Encoder) -> Iterator[RetrievalService]:
    store = DocumentStore(url, encoder.name)
    config = RetrievalConfig(chunk_tokens=16, chunk_overlap_tokens=4)
    ids = itertools.count(1)
    service = RetrievalService(store, encoder, config, Scopes(store), source_of(None), lambda: 1.0, lambda: f"vs_{next(ids)}", clock)
    yield service
    service.close()


def filled(service: RetrievalService, count: int = 2) -> str:
    store_id = service.create_store("a", "").id
    service.add_documents("a", store_id, [Document(f"d{number}", f"text {number}", {"n": number}) for number in range(count)])
    return store_id


def ids_of(result: SearchResult) -> list[str]:
    return [hit.chunk.document_id for hit in result.hits]


def test_the_two_results_are_of_one_version_whatever_happens_between(searches: RetrievalService, monkeypatch: pytest.MonkeyPatch) -> None:
    store_id = filled(searches)
    expected = searches.search("a", SearchRequest([store_id], ["what?"], 2))
    searches.search("a", SearchRequest([store_id], ["another"], 2))
    may_end = slow_stages(monkeypatch)
    begun = searches.begin_search("a", SearchRequest([store_id], ["what else?"], 2))
    assert begun.ticket is not None
    assert len(begun.result.hits) == 1
    assert (begun.result.versions, begun.result.scopes) == (expected.versions, expected.scopes)
    searches.add_documents("a", store_id, [Document("new", "new"), Document("d0", "otherwise")])
    searches.delete_document("a", store_id, "d1")
    may_end.set()
    final = searches.end_search("a", begun.ticket)
    assert final.versions == begun.result.versions
    assert {hit.chunk.text for hit in final.hits} == {"text 0", "text 1"}
    assert final.hits[0] == begun.result.hits[0]
    assert {hit.chunk.attributes["n"] for hit in final.hits} == {0, 1}


def test_what_is_quick_is_final_at_once(searches: RetrievalService) -> None:
    store_id = filled(searches)
    final = searches.search("a", SearchRequest([store_id], ["what?"], 2))
    assert searches.begin_search("a", SearchRequest([store_id], ["what?"], 2)) == Begun(final)  # the result cache's
    several = searches.begin_search("a", SearchRequest([store_id], ["text 0", "text 1"], 2))
    assert (several.ticket, set(ids_of(several.result))) == (None, {"d0", "d1"})
    for number in range(20):  # one stage: it has mostly ended within a moment
        begun = searches.begin_search("a", SearchRequest([store_id], [f"question {number}"], 2))
        final = begun.result if begun.ticket is None else searches.end_search("a", begun.ticket)
        assert final == searches.search("a", SearchRequest([store_id], [f"question {number}"], 2))
    assert len(searches._searcher._tickets) == 0


def test_all_stages_of_lists_lead_to_what_a_search_finds(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Encoder
) -> None:
    shrink(monkeypatch)
    store = DocumentStore(url, encoder.name)
    config = RetrievalConfig.model_validate({"chunk_tokens": 16, "chunk_overlap_tokens": 4, "result_cache": {"enabled": False}})
    service = RetrievalService(store, encoder, config, Scopes(store), source_of(tmp_path / "indexes", "ivf"), lambda: 1.0)
    first, second = filled(service, 150), filled(service, 5)
    service.search("a", SearchRequest([first, second], ["x"], 1))
    while service._indexes.tend():
        pass
    for number in range(10):
        begun = service.begin_search("a", SearchRequest([first, second], [f"question {number}"], 9))
        final = begun.result if begun.ticket is None else service.end_search("a", begun.ticket)
        assert final == service.search("a", SearchRequest([first, second], [f"question {number}"], 9))
        assert len(begun.result.hits) == 9
    service.close()


def test_a_ticket_is_of_one_namespace_good_once_and_for_some_seconds(
    searches: RetrievalService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_id = filled(searches)
    may_end = slow_stages(monkeypatch)
    begun = [searches.begin_search("a", SearchRequest([store_id], [f"question {number}"], 2)) for number in range(2)]
    tickets = [each.ticket for each in begun if each.ticket is not None]
    assert len(set(tickets)) == 2
    for namespace, ticket in (("b", tickets[0]), ("a", "x"), ("a", "")):
        with pytest.raises(UnknownTicketError):
            searches.end_search(namespace, ticket)
    may_end.set()
    searches.end_search("a", tickets[0])
    clock.now += TICKET_S
    for ticket in tickets:
        with pytest.raises(UnknownTicketError):
            searches.end_search("a", ticket)
    assert len(searches._searcher._tickets) == 0


@pytest.mark.parametrize(("queries", "top_k"), [(["q"], 0), ([" "], 1), ([], 1)])
def test_a_bad_search_is_not_begun(searches: RetrievalService, queries: list[str], top_k: int) -> None:
    with pytest.raises(QueryError):
        searches.begin_search("a", SearchRequest([], queries, top_k))


# Tickets


FOUND = [Found(1, 0.5)]
RESULT = SearchResult([], {})


class Stages:
    """Each waits for the test. Tells how many have been."""

    def __init__(self, count: int = 3, error: Exception | None = None) -> None:
        self.done, self._count, self._error = 0, count, error
        self.may_go_on = threading.Semaphore(0)

    def __iter__(self) -> Iterator[list[Found]]:
        for number in range(self._count):
            self.may_go_on.acquire(timeout=20)
            if self._error:
                raise self._error
            self.done += 1
            yield [Found(number, 0.5)]


@pytest.fixture
def tickets(clock: Clock) -> Iterator[Tickets]:
    made = Tickets(clock, max_open=2)
    yield made
    made.close()


def begun(tickets: Tickets, stages: Stages, finish: Callable[[list[Found]], SearchResult] = lambda found: RESULT) -> tuple[str, Run]:
    opened = tickets.begin("a", iter(stages), FOUND, finish)
    assert opened is not None
    return opened


def test_the_last_stage_is_what_is_finished(tickets: Tickets) -> None:
    stages, finished = Stages(3), list[list[Found]]()

    def finish(found: list[Found]) -> SearchResult:
        finished.append(found)
        return RESULT

    ticket, _ = begun(tickets, stages, finish)
    stages.may_go_on.release(3)
    assert tickets.end("a", ticket) is RESULT
    assert finished == [[Found(2, 0.5)]]


def test_a_search_that_nobody_ends_is_stopped_after_its_stage(tickets: Tickets, clock: Clock) -> None:
    stages = Stages(1000)
    _, run = begun(tickets, stages)
    clock.now += TICKET_S
    stages.may_go_on.release(1)
    with pytest.raises(UnknownTicketError):
        run.future.result(20)
    assert stages.done == 1


def test_many_are_refused_and_old_ones_make_room(tickets: Tickets, clock: Clock) -> None:
    first, second = Stages(1), Stages(1)
    ticket, _ = begun(tickets, first)
    begun(tickets, second)
    assert tickets.begin("a", iter(Stages(0)), FOUND, lambda found: RESULT) is None
    clock.now += TICKET_S
    assert begun(tickets, Stages(0))
    assert len(tickets) == 1
    for stages in (first, second):
        stages.may_go_on.release()
    with pytest.raises(UnknownTicketError):
        tickets.end("a", ticket)


def test_where_no_thread_has_time_the_one_that_waits_does_the_work(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets_module, "THREADS", 1)
    tickets = Tickets(clock)
    blocked, free = Stages(1), Stages(0)
    begun(tickets, blocked)
    ticket, _ = begun(tickets, free)
    assert tickets.end("a", ticket) is RESULT
    blocked.may_go_on.release()
    tickets.close()


def test_what_a_stage_raises_is_raised_at_the_end(tickets: Tickets) -> None:
    stages = Stages(1, VectorIndexError("down"))
    ticket, _ = begun(tickets, stages)
    stages.may_go_on.release()
    with pytest.raises(VectorIndexError):
        tickets.end("a", ticket)


def test_a_stage_that_hangs_is_waited_for_some_seconds(tickets: Tickets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets_module, "WAIT_S", 0.01)
    stages = Stages(1)
    started = threading.Event()

    def walk() -> Iterator[list[Found]]:
        started.set()
        yield from stages

    opened = tickets.begin("a", walk(), FOUND, lambda found: RESULT)
    assert opened is not None
    assert started.wait(20)
    with pytest.raises(StorageError, match="in time"):
        tickets.end("a", opened[0])
    stages.may_go_on.release()


def test_nothing_is_begun_once_it_is_closed(tickets: Tickets) -> None:
    tickets.close()
    assert tickets.begin("a", iter(Stages(0)), FOUND, lambda found: RESULT) is None
