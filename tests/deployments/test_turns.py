"""Who waits at the turnstile, and who goes first."""

import asyncio

from deployments.turns import Turnstile


class Gatekeeper:
    def __init__(self, window: int = 8) -> None:
        self.room = False
        self.went: list[str] = []
        self.turnstile = Turnstile(window, lambda: self.room)

    async def go(self, name: str, cached: int) -> None:
        async with self.turnstile.turn(100, lambda: cached):
            self.went.append(name)
            self.room = False

    async def begin(self, name: str, cached: int = 0) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.go(name, cached))
        await asyncio.sleep(0)
        return task

    async def one_more(self) -> None:
        self.room = True
        self.turnstile.wake()
        for _ in range(4):
            await asyncio.sleep(0)


async def test_nobody_waits_while_there_is_room() -> None:
    keeper = Gatekeeper()
    keeper.room = True
    await keeper.go("a", 0)
    assert keeper.went == ["a"]


async def test_room_that_nobody_tells_of_is_found() -> None:
    keeper = Gatekeeper()
    task = await keeper.begin("a")
    assert keeper.went == []
    keeper.room = True  # what another ingress had sent is done
    await asyncio.wait_for(task, 5)
    assert keeper.went == ["a"]


async def test_nobody_waits_without_a_window() -> None:
    keeper = Gatekeeper(window=0)
    await keeper.go("a", 0)
    assert keeper.went == ["a"]


async def test_of_those_who_wait_the_one_with_most_cached_goes_first_one_for_each_room() -> None:
    keeper = Gatekeeper()
    tasks = [await keeper.begin("a", 0), await keeper.begin("b", 90), await keeper.begin("c", 50)]
    assert (keeper.went, len(keeper.turnstile)) == ([], 3)
    await keeper.one_more()
    assert keeper.went == ["b"]
    await keeper.one_more()
    await keeper.one_more()
    assert keeper.went == ["b", "c", "a"]
    await asyncio.gather(*tasks)


async def test_who_comes_while_others_wait_does_not_slip_in() -> None:
    keeper = Gatekeeper()
    first = await keeper.begin("a", 90)
    keeper.room = True
    second = await keeper.begin("b", 0)
    assert keeper.went == []
    await keeper.one_more()
    assert keeper.went == ["a"]
    await keeper.one_more()
    await asyncio.gather(first, second)
    assert keeper.went == ["a", "b"]


async def test_who_leaves_holds_up_nobody() -> None:
    keeper = Gatekeeper()
    gone, stays = await keeper.begin("a", 90), await keeper.begin("b", 0)
    gone.cancel()
    await asyncio.sleep(0)
    await keeper.one_more()
    assert keeper.went == ["b"]
    last = await keeper.begin("c", 0)
    keeper.room = True
    keeper.turnstile.wake()
    last.cancel()  # in the moment in which its turn has come
    await asyncio.gather(last, return_exceptions=True)
    await keeper.go("d", 0)
    await stays
    assert keeper.went == ["b", "d"]


async def test_who_is_cancelled_in_the_moment_in_which_others_are_woken_holds_up_nobody() -> None:
    keeper = Gatekeeper()
    gone, stays = await keeper.begin("a", 90), await keeper.begin("b", 0)
    keeper.room = True
    gone.cancel()
    keeper.turnstile.wake()
    await asyncio.wait_for(stays, 5)
    assert keeper.went == ["b"]
    keeper.room = True
    await asyncio.wait_for(keeper.go("c", 0), 5)
