"""Equal reads at one time, and what each of them may have seen."""

import asyncio
from typing import Any

import pytest

from serve_app.coalesce import Coalesced
from tests.serve_app.fakes import eventually


class Value:
    """Something that is read slowly: what it was when the read began, given when the test lets it."""

    def __init__(self) -> None:
        self.now = 0
        self.begun = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def read(self) -> int:
        self.begun += 1
        seen = self.now
        await self.go.wait()
        if self.error:
            raise self.error
        return seen


async def started(reads: Coalesced, value: Value, number: int = 1, key: str = "k", limit_s: float = 5) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(reads.read(key, value.read, limit_s)) for _ in range(number)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_many_are_two_and_the_second_sees_what_was_written_meanwhile() -> None:
    reads, value = Coalesced(), Value()
    (first,) = await started(reads, value)
    value.now = 1
    others = await started(reads, value, 100)
    value.go.set()
    assert await first == 0
    assert set(await asyncio.gather(*others)) == {1}
    assert value.begun == 2


async def test_whoever_asks_while_the_second_runs_gets_a_third() -> None:
    reads, value = Coalesced(), Value()
    first = await started(reads, value)
    second = await started(reads, value, 2)
    value.go.set()
    value.go = asyncio.Event()  # for the second
    await first[0]
    await eventually(lambda: value.begun == 2)
    value.now = 2
    third = await started(reads, value, 3)
    value.go.set()
    assert (await asyncio.gather(*second), await asyncio.gather(*third)) == ([0, 0], [2, 2, 2])
    assert value.begun == 3


async def test_other_keys_do_not_wait() -> None:
    reads, value = Coalesced(), Value()
    tasks = await started(reads, value) + await started(reads, value, key="other")
    assert value.begun == 2
    value.go.set()
    await asyncio.gather(*tasks)


async def test_one_that_stops_waiting_ends_nobodys_read() -> None:
    reads, value = Coalesced(), Value()
    (first,) = await started(reads, value)
    others = await started(reads, value, 2)
    for task in (first, others[0]):
        task.cancel()
    await asyncio.sleep(0)
    value.go.set()
    assert await others[1] == 0


async def test_an_error_is_everybodys_and_the_next_read_is_new() -> None:
    reads, value = Coalesced(), Value()
    value.error = RuntimeError("down")
    tasks = await started(reads, value) + await started(reads, value, 3)
    value.go.set()
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [RuntimeError] * 4
    value.error = None
    assert await reads.read("k", value.read, 5) == 0


async def test_a_read_that_hangs_ends_for_those_behind_it() -> None:
    reads, value = Coalesced(), Value()
    first = await started(reads, value, limit_s=0.01)
    second = await started(reads, value)
    with pytest.raises(TimeoutError):
        await first[0]
    value.go.set()
    assert await second[0] == 0
