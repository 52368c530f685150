"""Work that takes minutes: whose turn it is, and how it ends."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from deployments.adding import Adding
from retrieval.errors import BusyError, StorageError
from tests.serve_app.fakes import eventually


class Held:
    """Work that goes on until it `may_end`; `wanted` has what it is told then."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.wanted: list[bool] = []

    def __call__(self, is_wanted: Callable[[], bool]) -> str:
        self.may_end.wait(20)
        self.wanted.append(is_wanted())
        return "done"


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def adding(held: Held) -> AsyncIterator[Adding]:
    adding = Adding(places=4)
    yield adding
    held.may_end.set()
    await asyncio.to_thread(adding.stop)


async def test_one_who_takes_all_he_can_has_half_of_the_places(adding: Adding, held: Held) -> None:
    both = [asyncio.create_task(adding.do("a", held)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await adding.do("a", held)
    another = asyncio.create_task(adding.do("b", held))
    await asyncio.sleep(0)
    held.may_end.set()
    assert await asyncio.gather(*both, another) == ["done"] * 3
    assert await adding.do("a", held) == "done"
    assert held.wanted == [True] * 4


async def test_who_leaves_gives_his_place_back_when_the_work_has_ended(adding: Adding, held: Held) -> None:
    left = [asyncio.create_task(adding.do("a", held)) for _ in range(2)]
    await eventually(lambda: len(adding._threads._threads) == 2)
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    with pytest.raises(BusyError):
        await adding.do("a", held)
    held.may_end.set()
    await eventually(lambda: not adding._taken)
    assert held.wanted == [False, False]
    assert await adding.do("a", held) == "done"


async def test_what_fails_gives_its_place_back(adding: Adding) -> None:
    def fail(is_wanted: Callable[[], bool]) -> None:
        raise ValueError("no")

    for _ in range(5):
        with pytest.raises(ValueError, match="no"):
            await adding.do("a", fail)


async def test_what_is_under_way_at_the_end_is_told(adding: Adding, held: Held) -> None:
    under_way = asyncio.create_task(adding.do("a", held))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(asyncio.to_thread(adding.stop))
    await eventually(adding._stopping.is_set)
    held.may_end.set()
    await stopping
    assert (await under_way, held.wanted) == ("done", [False])
    for _ in range(5):
        with pytest.raises(StorageError):
            await adding.do("a", held)
