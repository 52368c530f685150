"""Ingresses that tell each other what waits in them act as one queue."""

import pytest

from cache.prefix.fair import FairQueue
from deployments.gossip import MAX_BEHIND, MAX_BYTES, Gossip, Relay
from deployments.peers import FRESH_S, NEWS_S, PATIENCE_S, TOPIC, Peers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class End:
    """One ingress."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.queue = FairQueue[int](0)
        self.queue.credit = 100.0
        self.gossip = Gossip(name)
        self.gossip.others = 1
        self.pace = 50.0
        self.peers = Peers(self.queue, self.gossip.name, clock, lambda: self.pace)
        self.gossip.add(TOPIC, self.peers)
        self._numbers = 0

    def wait(self, *flows: str) -> None:
        for flow in flows:
            self.peers.look()
            self._numbers += 1
            self.queue.add(self._numbers, flow, 1.0, 10.0)

    def send(self) -> None:
        self.queue.pop()
        self.peers.sent()

    def tell(self, *others: "End") -> None:
        if message := self.gossip.message():
            for other in others:
                other.gossip.hear(message)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ends(clock: Clock) -> tuple[End, End]:
    return End("one", clock), End("two", clock)


def both_know(one: End, two: End) -> None:
    one.tell(two)
    two.tell(one)


def test_while_nobody_else_waits_nobody_is_let_first(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"aaaa")
    both_know(one, two)
    assert not one.peers.go_first()
    assert two.peers.are_waiting
    assert not two.peers.go_first()  # it has nothing that could wait


def test_who_has_had_least_goes_first_wherever_its_request_waits(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"aaaaaa")
    one.tell(two)
    for _ in range(3):
        one.send()
    one.tell(two)
    two.wait("b")  # nobody knew it: it begins as the least of those that wait anywhere
    assert two.queue.head() == ("b", 30.0)
    one.send()
    both_know(one, two)
    assert one.peers.go_first()
    assert not two.peers.go_first()
    two.send()
    two.tell(one)
    assert not one.peers.go_first()


def test_what_a_tenant_was_sent_by_others_counts(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"ab")
    two.wait(*"aaaab")
    both_know(one, two)
    for _ in range(2):
        two.queue.charge("a", 1.0, 10.0)
    two.tell(one)
    assert one.queue.head() == ("b", 0.0)
    assert one.queue.counter("a") == 20.0
    two.queue.charge("a", 1.0, -5.0)  # it has cost less than was expected
    two.tell(one)
    two.tell(one)
    assert one.queue.counter("a") == two.queue.counter("a") == 15.0


def test_of_equals_one_goes_first_and_both_know_which(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"a" * 200)
    two.wait(*"a" * 200)
    both_know(one, two)
    turns = ""
    for _ in range(200):
        assert one.peers.go_first() != two.peers.go_first()
        sender, other = (two, one) if one.peers.go_first() else (one, two)
        sender.send()
        sender.tell(other)
        turns += "1" if sender is one else "2"
    assert 60 < turns.count("1") < 140
    assert "1" * 12 not in turns
    assert "2" * 12 not in turns


def test_where_requests_go_faster_than_news_of_them_nobody_waits_for_it(ends: tuple[End, End]) -> None:
    """Of 100 requests in the time that news takes, none has to be in order; of tenants that are further behind, all."""
    one, two = ends
    one.pace = two.pace = 50 * 10.0 / NEWS_S
    one.wait(*"a" * 10)
    two.wait(*"a" * 10)
    both_know(one, two)
    assert not one.peers.go_first()
    assert not two.peers.go_first()
    two.queue.credit = 3000.0
    two.queue.passed("b", 1.0, 10.0)
    one.queue.charge("a", 1.0, 5000.0)
    one.tell(two)
    two.wait("b")
    two.tell(one)
    assert one.peers.go_first()


def test_others_that_do_not_take_their_turn_are_not_waited_for(ends: tuple[End, End], clock: Clock) -> None:
    one, two = ends
    one.wait("a")
    one.queue.charge("a", 1.0, 50.0)
    two.wait("b")
    two.tell(one)
    assert one.peers.go_first()
    clock.now = PATIENCE_S + 0.001
    assert not one.peers.go_first()
    one.peers.sent()
    assert one.peers.go_first()
    clock.now += FRESH_S + 0.001
    assert not one.peers.go_first()
    assert not one.peers.are_waiting


def test_an_ingress_that_begins_anew_is_not_behind_by_all_that_others_have_sent(ends: tuple[End, End], clock: Clock) -> None:
    one, two = ends
    one.wait(*"a" * 1000)
    for _ in range(900):
        one.send()
    two.wait("b", "b")  # it has heard of nobody yet
    both_know(one, two)
    two.wait("b")
    assert two.queue.counter("b") == 9000.0 - two.queue.credit
    two.tell(one)
    assert one.queue.counter("b") == 9000.0 - two.queue.credit


def test_what_waits_elsewhere_counts_for_the_length_of_a_queue_and_the_share(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"aab")
    two.wait(*"a")
    assert one.peers.share("a", 1.0) == 25.0  # 50 tokens a second, two tenants
    both_know(one, two)
    assert [two.peers.waiting(flow) for flow in "abc"] == [2, 1, 0]
    assert two.peers.share("c", 2.0) == 25.0  # 100 for weights of 4


def test_messages_that_are_lost_come_twice_or_late_do_no_harm(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wait(*"aaaa")
    messages = []
    for _ in range(3):
        one.queue.charge("a", 1.0, 10.0)
        messages.append(one.gossip.message())
    for number in (0, 2, 2, 1, 0):
        two.gossip.hear(messages[number] or b"")
    assert two.queue.counter("a") == 30.0


def test_nothing_is_told_where_nothing_waits_or_nobody_hears(ends: tuple[End, End]) -> None:
    one, _ = ends
    assert one.gossip.message() is None
    one.wait("a")
    assert one.gossip.message() is not None
    one.send()
    assert one.gossip.message() is not None  # that it does not wait any more
    assert one.gossip.message() is None
    one.wait("a")
    one.gossip.others = 0
    assert one.gossip.message() is None


@pytest.mark.parametrize("told", [None, 5, [1, 2], [1, 0.0, [["a", 1]]], ["x", "y", []]])
def test_what_cannot_be_understood_is_an_error_that_the_listener_knows(ends: tuple[End, End], told: object) -> None:
    one, _ = ends
    with pytest.raises((TypeError, ValueError)):
        one.peers.hear("other", told)


# Relays


def test_a_replica_tells_all_but_the_sender() -> None:
    relay = Relay()
    one, two, again = relay.listen("one"), relay.listen("two"), relay.listen("two")
    assert [relay.others(name) for name in ("one", "two", "three")] == [1, 1, 2]
    relay.say("one", b"news")
    assert (one.take(), two.take(), again.take(), two.take()) == ([], [b"news"], [b"news"], [])
    relay.leave(again)
    relay.leave(two)
    relay.say("one", b"news")
    assert two.take() == []


def test_what_a_replica_keeps_for_who_does_not_listen_is_bounded() -> None:
    relay = Relay()
    slow = relay.listen("slow")
    for number in range(2 * MAX_BEHIND):
        relay.say("other", b"%d" % number)
    relay.say("other", b"x" * (MAX_BYTES + 1))
    said = slow.take()
    assert (len(said), said[-1]) == (MAX_BEHIND, b"%d" % (2 * MAX_BEHIND - 1))
