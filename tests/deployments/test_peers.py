"""Ingresses take turns, by what each has sent."""

import asyncio

from deployments.peers import FRESH_S, PATIENCE_S, Peers
from deployments.turns import Flow, TurnLimits, Turnstile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def peers_of(clock: Clock, queued: float = 1.0) -> Peers:
    peers = Peers(clock)
    peers.told("r", queued, 1000)
    return peers


def test_while_nobody_else_waits_nobody_is_let_first() -> None:
    clock = Clock()
    peers = peers_of(clock, queued=0.0)
    for _ in range(10):
        peers.sent(10_000, 1.0)
    assert not peers.go_first()


def test_who_is_ahead_by_more_than_a_request_lets_the_others_go_first() -> None:
    peers = peers_of(Clock())
    peers.sent(100, 1.0)
    assert not peers.go_first()
    peers.sent(100, 1.0)
    assert peers.go_first()
    peers.told("r", 1.0, 1040)
    assert peers.go_first()
    peers.told("r", 1.0, 1060)
    assert not peers.go_first()


def test_parts_are_by_the_weights_of_those_who_wait() -> None:
    peers = peers_of(Clock(), queued=3.0)
    for _ in range(3):
        peers.sent(100, 1.0)
    peers.told("r", 3.0, 1000 + 440)
    assert peers.go_first()
    peers.told("r", 3.0, 1000 + 460)
    assert not peers.go_first()


def test_what_all_replicas_were_sent_counts_and_one_that_begins_anew_owes_nothing() -> None:
    peers = peers_of(Clock())
    peers.told("other", 1.0, 5000)
    for _ in range(3):
        peers.sent(100, 1.0)
    peers.told("r", 1.0, 1100)
    peers.told("other", 1.0, 20)  # it has been restarted
    assert peers.go_first()
    peers.told("other", 1.0, 80)
    assert not peers.go_first()


def test_others_that_do_not_go_are_not_waited_for() -> None:
    clock = Clock()
    peers = peers_of(clock)
    for _ in range(2):
        peers.sent(100, 1.0)
    clock.now = PATIENCE_S
    assert peers.go_first()
    clock.now += 0.01
    assert not peers.go_first()
    for _ in range(2):
        peers.sent(100, 1.0)
    assert peers.go_first()
    clock.now += FRESH_S + 0.1  # nothing was heard of them since
    assert not peers.go_first()


def test_what_was_sent_before_both_waited_does_not_count() -> None:
    peers = peers_of(Clock(), queued=0.0)
    for _ in range(9):
        peers.sent(10_000, 1.0)
    peers.told("r", 1.0, 1000)
    assert not peers.go_first()


async def test_two_queues_that_share_an_engine_take_turns() -> None:
    """Each hears of what the other has sent, and one is always asked first."""
    clock, room = Clock(), [False]
    went: list[str] = []
    ends = {name: Turnstile(TurnLimits(), lambda: 0.0 if room[0] else 1.0, clock) for name in "ab"}
    sent = dict.fromkeys(ends, 0)

    def tell() -> None:
        for name, turnstile in ends.items():
            (other,) = ends.keys() - {name}
            turnstile.peers.told("r", ends[other].weight, sent[other])

    async def go(name: str) -> None:
        async with ends[name].turn(Flow("tenant"), 100, lambda: 0):
            room[0] = False
            went.append(name)
            sent[name] += 100

    tasks = [asyncio.create_task(go(name)) for name in "aaaabbbb"]
    await asyncio.sleep(0)
    for _ in tasks:
        tell()
        room[0] = True
        for turnstile in ends.values():
            turnstile.wake()
            for _ in range(4):
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    counts = [went[:end].count("a") - went[:end].count("b") for end in range(len(went) + 1)]
    assert max(map(abs, counts)) <= 2
