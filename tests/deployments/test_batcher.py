"""Items that come together are computed together, and nobody waits for a timer."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from deployments.batcher import Batcher
from tests.deployments.servers import eventually


class Work:
    """Doubles numbers, when it is let; refuses 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        assert self.free.wait(5)
        if 13 in numbers:
            raise ValueError(13)
        return [2 * number for number in numbers]


@pytest.fixture
def work() -> Work:
    return Work()


async def held(work: Work, batcher: Batcher[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    """The first is being computed, the others wait."""
    work.free.clear()
    tasks = [asyncio.create_task(batcher.do(numbers[0]))]
    await eventually(lambda: len(work.batches) == 1)
    tasks += [asyncio.create_task(batcher.do(number)) for number in numbers[1:]]
    await asyncio.sleep(0)
    return tasks


async def test_one_alone_is_computed_at_once(work: Work) -> None:
    batcher = Batcher(work, 8)
    assert [await batcher.do(1), await batcher.do(2)] == [2, 4]
    assert work.batches == [[1], [2]]


async def test_those_that_come_meanwhile_are_the_next_batch(work: Work) -> None:
    tasks = await held(work, Batcher(work, 3), *range(6))
    work.free.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3], [4, 5]]


async def test_what_fails_fails_for_itself_only(work: Work) -> None:
    tasks = await held(work, Batcher(work, 8), 1, 2, 13, 3)
    work.free.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [2, 4, tasks[2].exception(), 6]
    assert isinstance(tasks[2].exception(), ValueError)


async def test_too_few_results_are_an_error_and_no_wait() -> None:
    batcher: Batcher[int, int] = Batcher(lambda numbers: [], 8)
    with pytest.raises(ValueError, match="zip"):
        await asyncio.wait_for(batcher.do(1), 5)


async def test_who_has_left_is_not_computed_for(work: Work) -> None:
    tasks = await held(work, Batcher(work, 8), 1, 2, 3)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks[:2])
    work.free.set()
    assert await tasks[2] == 6
    assert work.batches == [[1], [3]]


async def test_so_many_batches_as_may_be_are_computed_at_once(work: Work) -> None:
    batcher = Batcher(work, 2, at_once=2)
    tasks = await held(work, batcher, 1)
    tasks += [asyncio.create_task(batcher.do(number)) for number in (2, 3, 4, 5)]
    await eventually(lambda: len(work.batches) == 2)
    work.free.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert work.batches == [[1], [2, 3], [4, 5]]


class Panic(BaseException):
    """As Rust code raises it in Python."""


async def test_a_panic_costs_only_the_item_that_causes_it() -> None:
    def work(numbers: Sequence[int]) -> list[int]:
        if 13 in numbers:
            raise Panic
        return list(numbers)

    batcher = Batcher(work, 8)
    good, bad, other = await asyncio.gather(*(batcher.do(number) for number in (1, 13, 2)), return_exceptions=True)
    assert (good, other) == (1, 2)
    assert isinstance(bad, Panic)
    assert await batcher.do(3) == 3
