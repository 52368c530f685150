"""Which documents a chat is given: as many as fit, under whose salt, and what is begun with before they are known."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from retrieval.documents import Begun, Chunk, SearchHit, SearchRequest, SearchResult
from retrieval.errors import DocumentError, StorageError, UnknownTicketError
from retrieval.scopes import Caller, namespace_of
from serve_app.augment import lasting
from serve_app.errors import InvalidRequestError
from tests.serve_app.asking import ask, caller, chat
from tests.serve_app.fakes import CONTEXT, World, eventually, make_world


def hits(*texts: str) -> list[SearchHit]:
    """Best first."""
    return [SearchHit(Chunk(f"d{number}", 0, text), 0.9 - number / 100) for number, text in enumerate(texts)]


@dataclass
class Documents:
    """A `DocumentService` that says what a test puts into it."""

    found: Sequence[SearchHit]
    scope: str = ""
    provisional: Sequence[SearchHit] | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    waiting: bool = False

    def result(self, namespace: str, store_ids: list[str], found: Sequence[SearchHit]) -> SearchResult:
        scopes = {each: self.scope if each.startswith("group") else namespace for each in store_ids}
        return SearchResult(list(found), dict.fromkeys(store_ids, 1), scopes)

    async def search(self, caller: Caller, request: SearchRequest) -> SearchResult:
        return self.result(namespace_of(caller), request.store_ids, self.found)

    async def begin_search(self, caller: Caller, request: SearchRequest) -> Begun:
        self._asked = namespace_of(caller), request.store_ids
        if self.provisional is None:
            return Begun(self.result(*self._asked, self.found))
        return Begun(self.result(*self._asked, self.provisional), "ticket")

    async def end_search(self, namespace: str, ticket: str) -> SearchResult:
        assert (namespace, ticket) == (self._asked[0], "ticket")
        self.waiting = True
        await self.go_on.wait()
        if self.failure:
            raise self.failure
        return self.result(*self._asked, self.found)

    async def call(self, method: str, *args: Any) -> Any: ...


def world_with(documents: Documents, **changes: Any) -> World:
    world = make_world(**changes)
    world.pipeline = replace(world.pipeline, documents=documents)
    return world


def sent(world: World) -> dict[str, Any]:
    body: dict[str, Any] = world.replicas.bodies[-1]
    return body


async def test_what_does_not_fit_is_left_out_and_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(hits("first " * 100, "second " * 100, "third " * 100))
    world = world_with(documents)

    async def lengths(chat: Any) -> tuple[int, list[int]]:
        return 10, [CONTEXT // 3] * len(chat.blocks)

    monkeypatch.setattr(world.pipeline.routing, "lengths", lengths)
    reply = await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}, max_tokens=16), caller())
    assert reply.headers["x-mygo-documents"] == "d0#0,d1#0"
    assert reply.headers["x-mygo-documents-left-out"] == "1"
    prompt = sent(world)["messages"][-1]["content"]
    assert ("second" in prompt, "third" in prompt) == (True, False)


async def test_that_no_document_fits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with(Documents(hits("first " * 300)))

    async def lengths(chat: Any) -> tuple[int, list[int]]:
        return 10, [CONTEXT]

    monkeypatch.setattr(world.pipeline.routing, "lengths", lengths)
    reply = await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}, max_tokens=16), caller())
    headers = dict(reply.raw_headers())
    assert (headers[b"x-mygo-documents"], headers[b"x-mygo-documents-left-out"]) == (b"", b"1")


async def test_control_tokens_of_the_engines_tokenizer_come_from_no_document() -> None:
    world = world_with(Documents(hits("a<seed:eos>b")))
    world.directory.replace([replace(replica, control_tokens=("<seed:eos>",)) for replica in world.directory.known])
    await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert "a<\\seed:eos>b" in sent(world)["messages"][-1]["content"]


async def test_no_answer_of_documents_in_another_order_is_given_where_they_must_not_be_moved() -> None:
    world = world_with(Documents(hits("a", "b")))
    request = chat(retrieval={"vector_store_ids": ["vs"]})
    in_order = chat(retrieval={"vector_store_ids": ["vs"], "reorder": False})
    assert [(await ask(world, each))[0] for each in (request, in_order, in_order, request)] == ["miss", "miss", "exact", "exact"]


async def test_a_collection_of_another_encoder_is_named_as_a_chat_names_it() -> None:
    documents = Documents([])
    world = world_with(documents)

    async def search(caller: Caller, request: SearchRequest) -> SearchResult:
        raise DocumentError("the collection was made with another encoder", "vector_store_id")

    documents.search = search  # type: ignore[method-assign]
    with pytest.raises(InvalidRequestError, match="made with another encoder") as refused:
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"], "reorder": False}), caller())
    assert refused.value.param == "retrieval.vector_store_ids"


async def test_what_fits_is_not_counted() -> None:
    world = world_with(Documents(hits("short")))
    reply = await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}, max_tokens=16), caller())
    assert "x-mygo-documents-left-out" not in reply.headers


@pytest.mark.parametrize(("stores", "salt"), [(["group_1"], "shared"), (["group_1", "group_2"], "shared"), (["group_1", "vs"], None)])
async def test_documents_of_a_group_are_computed_under_the_groups_salt(stores: list[str], salt: str | None) -> None:
    world = world_with(Documents(hits("of the group"), scope="shared"))
    await world.pipeline.generate(chat(retrieval={"vector_store_ids": stores}), caller())
    assert sent(world)["cache_salt"] == (salt or world.pipeline.namespaces.of("default"))


async def test_a_chat_that_got_no_documents_of_a_group_stays_its_tenants() -> None:
    world = world_with(Documents([], scope="shared"))
    await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["group_1"]}), caller())
    assert sent(world)["cache_salt"] == world.pipeline.namespaces.of("default")


@pytest.mark.parametrize(("fields", "is_planned"), [({}, True), ({"truncate_prompt_tokens": 9}, False)])
async def test_a_prompt_that_is_to_be_cut_off_is_not_joined_from_parts(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], is_planned: bool
) -> None:
    world = world_with(Documents(hits("a", "b")))
    rank, chats = world.pipeline.routing.rank, []

    async def seen(*args: Any, **fields: Any) -> Any:
        chats.append(args[4])
        return await rank(*args, **fields)

    monkeypatch.setattr(world.pipeline.routing, "rank", seen)
    await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}, **fields), caller())
    assert [each is not None for each in chats] == [is_planned]


async def test_an_answer_from_a_groups_documents_is_its_tenants_own() -> None:
    world = world_with(Documents(hits("of the group"), scope="shared"))
    request = chat(retrieval={"vector_store_ids": ["group_1"]})
    assert (await ask(world, request))[0] == "miss"
    assert (await ask(world, request))[0] == "exact"
    reply = await world.pipeline.generate(request, caller("other"))
    assert reply.headers["x-mygo-cache"] == "miss"


async def test_the_final_documents_count_and_the_gate_hears_of_the_search() -> None:
    documents = Documents(hits("a", "b"), provisional=hits("a", "b", "c"))
    world = world_with(documents)
    running = asyncio.create_task(world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller()))
    await eventually(lambda: documents.waiting)
    assert not world.replicas.bodies
    documents.go_on.set()
    reply = await running
    assert reply.headers["x-mygo-documents"] == "d0#0,d1#0"
    assert world.pipeline.routing.gate.searches == 1
    assert world.pipeline.routing.gate.lasting == pytest.approx(2 / 3)


async def test_a_search_that_was_forgotten_is_made_anew() -> None:
    documents = Documents(hits("a"), provisional=hits("b"), failure=UnknownTicketError("forgotten"))
    documents.go_on.set()
    reply = await world_with(documents).pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert reply.headers["x-mygo-documents"] == "d0#0"


class Start:
    """A head start that only counts; no prefill follows it."""

    def __init__(self) -> None:
        self.begun = False
        self.left = 0

    def leave(self) -> None:
        self.left += 1

    def spent(self, final: None) -> tuple[int, int]:
        return 0, 5


@pytest.mark.parametrize("failure", [None, StorageError("gone")])
async def test_a_head_start_is_left_whatever_happens(failure: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(hits("a"), provisional=hits("a"), failure=failure)
    world, start = world_with(documents), Start()

    async def head_start(salt: str, chat: Any) -> Start:
        start.begun = True
        return start

    monkeypatch.setattr(world.pipeline.routing, "head_start", head_start)
    running = asyncio.create_task(world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller()))
    await eventually(lambda: start.begun)
    documents.go_on.set()
    if failure:
        with pytest.raises(StorageError):
            await running
    else:
        await running
    assert start.left >= 1
    assert world.pipeline.routing.gate.wasted == 5


async def test_a_client_that_leaves_during_the_search_leaves_no_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(hits("a"), provisional=hits("a"))
    world, start = world_with(documents), Start()

    async def head_start(salt: str, chat: Any) -> Start:
        start.begun = True
        return start

    monkeypatch.setattr(world.pipeline.routing, "head_start", head_start)
    running = asyncio.create_task(world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller()))
    await eventually(lambda: start.begun)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (start.left, world.pipeline.routing.gate.wasted) == (1, 5)


async def test_what_has_not_begun_when_the_search_ends_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(hits("a"), provisional=hits("a"))
    world = world_with(documents)
    steps: list[str] = []

    async def head_start(salt: str, chat: Any) -> None:
        steps.append("asked")
        try:
            await asyncio.Event().wait()  # a replica that does not answer
        finally:
            steps.append("cancelled")

    monkeypatch.setattr(world.pipeline.routing, "head_start", head_start)
    running = asyncio.create_task(world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller()))
    await eventually(lambda: steps == ["asked"])
    documents.go_on.set()
    assert (await running).status == 200
    await eventually(lambda: steps == ["asked", "cancelled"])


async def test_a_head_start_that_fails_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(hits("a"), provisional=hits("a"))
    world = world_with(documents)

    async def head_start(salt: str, chat: Any) -> None:
        raise ValueError("of the unexpected kind")

    monkeypatch.setattr(world.pipeline.routing, "head_start", head_start)
    running = asyncio.create_task(world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller()))
    await eventually(lambda: documents.waiting)
    documents.go_on.set()
    assert (await running).status == 200


async def test_without_reordering_there_is_no_head_start() -> None:
    documents = Documents(hits("a"), provisional=hits("b"))
    world = world_with(documents)
    await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"], "reorder": False}), caller())
    assert not documents.waiting


async def test_where_no_plans_are_made_the_search_is_in_one_step() -> None:
    documents = Documents(hits("a"), provisional=hits("b"))
    world = world_with(documents, routing={"policy": "round_robin"})
    reply = await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert (reply.headers["x-mygo-documents"], documents.waiting) == ("d0#0", False)


async def test_retrieval_that_is_turned_off_is_refused() -> None:
    world = make_world()
    world.pipeline = replace(world.pipeline, documents=None)
    with pytest.raises(InvalidRequestError):
        await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())


async def test_no_documents_are_no_error() -> None:
    world = world_with(Documents([]))
    reply = await world.pipeline.generate(chat(retrieval={"vector_store_ids": ["vs"]}), caller())
    assert reply.status == 200
    assert msgspec.json.encode(sent(world)["messages"]) == msgspec.json.encode(chat().body["messages"])


def test_what_lasts() -> None:
    some = hits("a", "b", "c")
    assert lasting(some, some[::-1]) == 1.0
    assert lasting(some, [some[0], some[2]]) == pytest.approx(1 / 3)
    assert lasting([], some) == 0.0
