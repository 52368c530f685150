"""Ingresses tell each other, over real channels, through replicas."""

import asyncio
from typing import Any

import pytest

from deployments import fleet_watch
from tests.deployments.prefix_fleet import Ingress, ingress_of, nodes_of
from tests.deployments.servers import eventually


class Says:
    """Tells a number once, and keeps what it hears."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.heard: list[Any] = []

    def tell(self) -> Any:
        number, self.number = self.number, None
        return number

    def hear(self, ingress: str, told: Any) -> None:
        if told == 13:
            raise ValueError(told)
        self.heard.append(told)


def knows_others(ingress: Ingress, number: int) -> bool:
    return ingress.routing.gossip.others == number


async def test_all_others_hear_it_once_and_what_nobody_understands_harms_nobody() -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as one, ingress_of(*nodes, name="two") as two:
        async with ingress_of(*nodes, name="three") as three:
            await eventually(lambda: all(knows_others(each, 2) for each in (one, two, three)))
            topics = [Says(7), Says(None), Says(None)]
            for ingress, topic in zip((one, two, three), topics, strict=True):
                ingress.routing.gossip.add("numbers", topic)
            await eventually(lambda: [topic.heard for topic in topics] == [[], [7], [7]])
            topics[1].number = 13
            await eventually(lambda: topics[1].number is None)
            topics[1].number = 8
            await eventually(lambda: [topic.heard for topic in topics] == [[8], [7], [7, 8]])
        await eventually(lambda: knows_others(one, 1))
    assert not knows_others(two, 2)


async def test_that_a_request_was_sent_is_told_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes_of("a", "b") as nodes, ingress_of(*nodes) as one, ingress_of(*nodes, name="two") as two:
        await eventually(lambda: knows_others(one, 1) and knows_others(two, 1))
        monkeypatch.setattr(fleet_watch, "TELL_S", 60.0)  # nothing is told but what is urgent
        turnstile, waiting = two.routing.turnstile, asyncio.get_running_loop().create_future()
        turnstile._queue.add(waiting, "b", 1.0, 10.0)
        two.routing.gossip.urgent.set()
        await eventually(lambda: one.routing.turnstile.peers.are_waiting)
        await one.ask()  # it lets the other go first, which does not go
        await eventually(lambda: [peer.sent for peer in turnstile.peers._peers.values()] == [1])
