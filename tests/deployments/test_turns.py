"""Who waits at the turnstile, and who goes first."""

import asyncio

import pytest

from deployments.errors import QueueFullError
from deployments.turns import SURE, Flow, Pace, TurnLimits, Turnstile

NOBODYS = Flow()


class Gatekeeper:
    def __init__(self, limits: TurnLimits = TurnLimits(window=8)) -> None:  # noqa: B008  # frozen
        self.room = False
        self.room_in = 10.0
        self.now = 0.0
        self.went: list[str] = []
        self.turnstile = Turnstile(limits, lambda: 0.0 if self.room else self.room_in, lambda: self.now)

    async def go(self, name: str, cached: int, flow: Flow = NOBODYS) -> None:
        async with self.turnstile.turn(flow, 100, lambda: cached):
            self.went.append(name)
            self.room = False

    async def begin(self, name: str, cached: int = 0, flow: Flow = NOBODYS) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.go(name, cached, flow))
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


async def test_where_turns_need_not_be_fair_nobody_waits() -> None:
    keeper = Gatekeeper(TurnLimits(is_fair=False))
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


# Fairness


async def test_tenants_take_turns() -> None:
    keeper = Gatekeeper(TurnLimits())
    greedy, modest = Flow("greedy"), Flow("modest")
    tasks = [await keeper.begin(f"greedy {number}", flow=greedy) for number in range(4)]
    tasks += [await keeper.begin(f"modest {number}", flow=modest) for number in range(2)]
    for _ in tasks:
        await keeper.one_more()
    await asyncio.gather(*tasks)
    assert keeper.went == ["modest 0", "greedy 0", "modest 1", "greedy 1", "greedy 2", "greedy 3"]


async def test_what_is_counted_is_what_is_computed_and_answered() -> None:
    keeper = Gatekeeper(TurnLimits())
    long, cached = Flow("long", output_tokens=100), Flow("cached")
    tasks = [await keeper.begin(f"long {number}", 0, long) for number in range(2)]
    tasks += [await keeper.begin(f"cached {number}", 50, cached) for number in range(5)]
    for _ in tasks:
        await keeper.one_more()
    await asyncio.gather(*tasks)
    assert keeper.went.index("long 1") == 6  # 200 tokens are four times 50, and of equals who has come last goes first


async def test_an_answer_that_was_longer_than_expected_is_charged_later() -> None:
    keeper = Gatekeeper(TurnLimits())
    one, other = Flow("one"), Flow("other")
    tasks = [await keeper.begin(f"{flow.name} {number}", flow=flow) for flow in (one, other) for number in range(2)]
    keeper.turnstile.charge(one, 150.0)
    for _ in tasks:
        await keeper.one_more()
    await asyncio.gather(*tasks)
    assert keeper.went == ["other 0", "other 1", "one 0", "one 1"]


# Bounds


async def full(keeper: Gatekeeper, flow: Flow = NOBODYS) -> QueueFullError:
    with pytest.raises(QueueFullError) as caught:
        await asyncio.wait_for(keeper.go("late", 0, flow), 5)
    return caught.value


async def test_a_flow_may_have_no_more_waiting_than_it_may() -> None:
    keeper = Gatekeeper(TurnLimits())
    few = Flow("few", max_waiting=2)
    tasks = [await keeper.begin("few", flow=few) for _ in range(2)]
    assert (await full(keeper, few)).is_own
    tasks.append(await keeper.begin("other", flow=Flow("other")))
    for _ in tasks:
        await keeper.one_more()
    await asyncio.gather(*tasks)
    assert sorted(keeper.went) == ["few", "few", "other"]


async def test_a_flow_of_which_nothing_may_wait_passes_while_there_is_room() -> None:
    keeper = Gatekeeper(TurnLimits())
    none = Flow("none", max_waiting=0)
    assert keeper.turnstile.is_full(none)
    keeper.room = True
    keeper.turnstile.check(none)
    await asyncio.wait_for(keeper.go("none", 0, none), 5)
    assert (await full(keeper, none)).is_own


async def test_all_together_have_a_bound() -> None:
    keeper = Gatekeeper(TurnLimits(max_waiting=2))
    tasks = [await keeper.begin(name, flow=Flow(name)) for name in "ab"]
    assert not (await full(keeper, Flow("c"))).is_own
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    keeper.room = True
    await asyncio.wait_for(keeper.go("d", 0), 5)


async def test_what_would_wait_for_too_long_is_refused_when_it_comes() -> None:
    """The queue moves by 100 tokens a second, as has been seen."""
    keeper = Gatekeeper(TurnLimits(max_wait_s=3.5 / SURE))
    tasks = [await keeper.begin(str(number)) for number in range(3)]
    for _ in range(2):
        keeper.now += 1.0
        await keeper.one_more()
    tasks += [await keeper.begin(str(number)) for number in range(3)]  # four wait now
    error = await full(keeper)
    assert error.retry_after_s == pytest.approx(4.0)
    assert not error.is_own
    assert (await full(keeper, Flow(max_wait_s=0.5))).retry_after_s == pytest.approx(4.0)
    tasks.append(await keeper.begin("other", flow=Flow("other")))  # a tenant of which nothing waits is next
    for _ in range(6):
        await keeper.one_more()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(("flow", "limits"), [(Flow(max_wait_s=0.02), TurnLimits()), (NOBODYS, TurnLimits(max_wait_s=0.01))])
async def test_who_has_waited_for_too_long_waits_no_longer(flow: Flow, limits: TurnLimits) -> None:
    keeper = Gatekeeper(limits)
    with pytest.raises(QueueFullError):
        await asyncio.wait_for(keeper.go("late", 0, flow), 5)
    assert len(keeper.turnstile) == 0
    keeper.room = True
    await asyncio.wait_for(keeper.go("next", 0), 5)
    assert keeper.went == ["next"]


def test_the_pace_is_that_of_the_last_seconds_and_slows_down_when_nothing_moves() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.seconds_per_token == 0.0
    for _ in range(50):
        now[0] += 1.0
        pace.add(100.0)
    assert pace.seconds_per_token == pytest.approx(0.01)
    now[0] += 100.0
    assert pace.seconds_per_token > 0.1
    pace.begin()
    assert pace.seconds_per_token == pytest.approx(0.01)
    for _ in range(50):
        now[0] += 4.0
        pace.add(100.0)
    assert pace.seconds_per_token == pytest.approx(0.04, rel=0.01)
