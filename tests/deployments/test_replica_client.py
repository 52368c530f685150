"""Requests to replicas over real connections, and through a fake of Ray's handle."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from deployments.channel.patience import Patience
from deployments.circuits import ENOUGH, IN_A_ROW
from deployments.engines.base import Message, Receive, Send
from deployments.errors import DeploymentError, NoReplicaError, ReplicaLostError, SilentReplicaError
from deployments.replica_client import Call
from deployments.replicas import Replica
from tests.deployments.replica_fakes import (
    CALL,
    SECRET,
    FakeHandle,
    FakeReplica,
    Fleet,
    answering,
    body_of,
    fleet_of,
    raw_server,
    serving,
    unused_url,
)
from tests.deployments.servers import eventually

# Relaying


async def test_a_request_arrives_as_it_was_sent() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (200, "a", b"hello")
    ((method, target, headers, body),) = app.requests
    assert (method, target, body) == ("POST", "/v1/x?a=1", CALL.body)
    assert headers == dict(CALL.headers)


@pytest.mark.parametrize("pieces", [[b""], [b"data: x\n\n", b"\x00\xff", b"\r\n"], [b"x" * 3_000_000], [b"y"] * 500])
@pytest.mark.parametrize("headers", [{}, {"content-encoding": "gzip"}, {"content-type": "text/plain; charset=utf-16"}])
async def test_bytes_are_relayed_as_they_are(pieces: list[bytes], headers: dict[str, str]) -> None:
    async with serving(FakeReplica(pieces, headers=headers)) as url, fleet_of(url) as fleet:
        assert await body_of(await fleet.client.send(CALL, fleet.ranked)) == b"".join(pieces)


async def test_a_piece_arrives_before_the_answer_ends() -> None:
    async with serving(FakeReplica([b"first"], hangs=True)) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert await anext(answer.chunks()) == b"first"
        await answer.close()


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_error_of_the_engine_is_its_answer(status: int) -> None:
    app, other = FakeReplica([b"no"], status), FakeReplica()
    async with serving(app) as url, serving(other) as other_url, fleet_of(url, other_url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (status, "a", b"no")
        assert fleet.suspended == set()
    assert other.requests == []


# Leaving


async def test_closing_an_answer_early_aborts_it_in_the_engine() -> None:
    app = FakeReplica(hangs=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        await anext(answer.chunks())
        assert app.left == 0
        await answer.close()
        await answer.close()
        await eventually(lambda: app.left == 1)


async def test_giving_up_the_wait_for_an_answer_aborts_it_in_the_engine() -> None:
    app = FakeReplica(silent=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        sending = asyncio.create_task(fleet.client.send(CALL, fleet.ranked))
        await eventually(lambda: bool(app.requests))
        sending.cancel()
        await eventually(lambda: app.left == 1)
        assert fleet.suspended == set()
        assert fleet.handle.calls == []


# Spilling


async def test_a_replica_that_refuses_connections_is_passed_over() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(unused_url(), url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.replica, await body_of(answer)) == ("b", b"hello")
        assert fleet.suspended == {"a"}
    assert app.requests[0][3] == CALL.body


async def test_a_replica_that_says_so_is_passed_over() -> None:
    draining, app = FakeReplica([b"draining"], 503, {"x-mygo-retry": "1"}), FakeReplica()
    async with serving(draining) as draining_url, serving(app) as url, fleet_of(draining_url, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_request_that_had_no_byte_back_is_tried_once_elsewhere() -> None:
    apps = [_Breaking(), FakeReplica()]
    async with serving(apps[0]) as dying, serving(apps[1]) as url, fleet_of(dying, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_request_whose_answer_was_announced_and_had_no_byte_is_tried_once_elsewhere() -> None:
    apps = [FakeReplica([], breaks=True), FakeReplica()]
    async with serving(apps[0]) as dying, serving(apps[1]) as url, fleet_of(dying, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_request_that_had_a_byte_back_is_not_tried_elsewhere() -> None:
    apps = [FakeReplica([b"first"], breaks=True), FakeReplica()]
    async with serving(apps[0]) as dying, serving(apps[1]) as url, fleet_of(dying, url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        with pytest.raises(ReplicaLostError):
            await body_of(answer)
    assert (answer.replica, apps[1].requests) == ("a", [])


async def test_a_request_that_ends_two_replicas_is_not_given_to_a_third() -> None:
    apps = [_Breaking(), _Breaking(), FakeReplica()]
    async with serving(apps[0]) as a, serving(apps[1]) as b, serving(apps[2]) as c, fleet_of(a, b, c) as fleet:
        with pytest.raises(ReplicaLostError):
            await fleet.client.send(CALL, fleet.ranked)
        assert fleet.suspended == {"a"}
    assert [len(app.requests) for app in apps] == [1, 1, 0]


class _Breaking(FakeReplica):
    """Takes the request and fails without a byte."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.requests.append(("", "", {}, b""))
        raise RuntimeError


async def test_what_is_no_replica_is_passed_over() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with raw_server(babble) as strange, serving(FakeReplica()) as url, fleet_of(strange, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == {"a"}


async def test_a_replica_of_another_application_is_passed_over() -> None:
    other, app = FakeReplica(), FakeReplica()
    async with serving(other, "another secret") as stranger, serving(app) as url, fleet_of(stranger, url) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
    assert other.requests == []


async def test_a_replica_that_is_restarted_under_its_address_is_reached_again() -> None:
    app = FakeReplica()
    async with serving(app) as url, fleet_of(url) as fleet:
        assert await answering(fleet, fleet.ranked) == "a"
        (await fleet.client._connections.to(url)).close()
        assert await answering(fleet, fleet.ranked) == "a"


async def test_replicas_are_asked_in_their_order() -> None:
    apps = [FakeReplica(headers={"x-mygo-retry": "1"}), FakeReplica(), FakeReplica()]
    async with serving(apps[0]) as a, serving(apps[1]) as b, serving(apps[2]) as c, fleet_of(a, b, c) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert await answering(fleet, fleet.ranked[::-1]) == "c"
    assert [len(app.requests) for app in apps] == [1, 1, 1]


async def test_a_full_replica_is_passed_over_but_not_suspended() -> None:
    full, other = FakeReplica(headers={"x-mygo-retry": "full"}, status=503), FakeReplica()
    async with serving(full) as a, serving(other) as b, fleet_of(a, b) as fleet:
        assert await answering(fleet, fleet.ranked) == "b"
        assert fleet.suspended == set()


async def test_when_all_are_full_the_last_one_says_so() -> None:
    apps = [FakeReplica([name], headers={"x-mygo-retry": "full"}, status=503) for name in (b"one", b"two")]
    async with serving(apps[0]) as a, serving(apps[1]) as b, fleet_of(a, b) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (503, "b", b"two")
        assert (fleet.handle.calls, fleet.suspended) == ([], set())


async def test_each_replica_that_is_asked_is_told_of_before_and_gets_headers_of_its_own() -> None:
    apps = [FakeReplica(headers={"x-mygo-retry": "1"}), FakeReplica()]
    asked: list[str] = []

    def asking(replica: str) -> dict[str, str]:
        asked.append(replica)
        return {"x-for": replica}

    async with serving(apps[0]) as a, serving(apps[1]) as b, fleet_of(a, b) as fleet:
        await (await fleet.client.send(CALL, fleet.ranked, asking)).close()
    assert asked == ["a", "b"]
    assert [app.requests[0][2]["x-for"] for app in apps] == ["a", "b"]
    assert all(app.requests[0][2]["x-request-id"] == "r-1" for app in apps)


# Silence


async def test_a_silent_replica_is_not_asked_twice() -> None:
    app, other = FakeReplica(silent=True), FakeReplica()
    async with serving(app) as url, serving(other) as other_url, fleet_of(url, other_url, silence_s=0.05) as fleet:
        with pytest.raises(ReplicaLostError):
            await fleet.client.send(CALL, fleet.ranked)
        assert (other.requests, fleet.handle.calls) == ([], [])
        await eventually(lambda: app.left == 1)


async def test_silence_within_an_answer_loses_it() -> None:
    async with serving(FakeReplica([b"first"], hangs=True)) as url, fleet_of(url, silence_s=0.05) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        chunks = answer.chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(ReplicaLostError):
            await anext(chunks)
        await answer.close()


TOKENS = Patience(0.05, 0.05)


async def test_an_answer_without_a_first_token_is_given_up_though_it_was_announced() -> None:
    app, other = FakeReplica([], hangs=True), FakeReplica()
    async with serving(app) as url, serving(other) as other_url, fleet_of(url, other_url) as fleet:
        with pytest.raises(SilentReplicaError) as silent:
            await fleet.client.send(replace(CALL, patience=TOKENS), fleet.ranked)
        assert not silent.value.has_begun
        assert (other.requests, fleet.handle.calls) == ([], [])  # it may be at work
        await eventually(lambda: app.left == 1)


async def test_the_first_token_and_those_behind_it_have_limits_of_their_own() -> None:
    app = FakeReplica([b"first"], hangs=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(replace(CALL, patience=Patience(5, 0.05)), fleet.ranked)
        with pytest.raises(SilentReplicaError) as silent:
            await body_of(answer)
        assert silent.value.has_begun
        await eventually(lambda: app.left == 1)


async def test_the_handle_has_these_limits_too() -> None:
    cases: list[tuple[tuple[Any, ...], bool]] = [(((200, {}), None), False), (((200, {}), b"first", None), True)]
    for items, begun in cases:
        async with fleet_of(handle=FakeHandle(*items)) as fleet:
            with pytest.raises(SilentReplicaError) as silent:
                await body_of(await fleet.client.send(replace(CALL, patience=TOKENS), []))
            assert (silent.value.has_begun, fleet.handle.cancelled > 0) == (begun, True)


async def test_an_answer_that_breaks_off_is_lost() -> None:
    async with serving(FakeReplica([b"first"], breaks=True)) as url, fleet_of(url) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        chunks = answer.chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(ReplicaLostError):
            await anext(chunks)
        await answer.close()


# Circuits


async def failing(fleet: Fleet, call: Call = CALL) -> None:
    """Sends it to the first replica alone; how that fails is not what it is about."""
    with suppress(DeploymentError):
        await body_of(await fleet.client.send(call, fleet.ranked[:1]))


@pytest.mark.parametrize(
    ("app", "patience", "reason"),
    [
        (FakeReplica(silent=True), TOKENS, "first_token"),
        (FakeReplica([], hangs=True), TOKENS, "first_token"),
        (FakeReplica([], breaks=True), None, "lost"),
        (FakeReplica([b"dead"], 500, {"x-mygo-retry": "1"}), None, "refused"),
    ],
    ids=["silent", "without a token", "lost", "dead"],
)
async def test_a_replica_that_keeps_failing_opens_its_circuit(app: FakeReplica, patience: Patience | None, reason: str) -> None:
    opened: list[str] = []
    async with serving(app) as url, fleet_of(url) as fleet:
        fleet.directory.circuits.opened = opened.append
        for _ in range(IN_A_ROW):
            assert opened == []
            await failing(fleet, replace(CALL, patience=patience))
    assert (opened, fleet.directory.circuit_states()["open"]) == ([reason], 1)


async def test_a_replica_that_is_not_there_opens_its_circuit() -> None:
    async with fleet_of(unused_url()) as fleet:
        for _ in range(IN_A_ROW):
            await failing(fleet)
        assert not fleet.directory.circuits.passes("a")


async def test_answers_that_break_off_open_a_circuit() -> None:
    opened: list[str] = []
    async with serving(FakeReplica([b"first"], breaks=True)) as url, fleet_of(url) as fleet:
        fleet.directory.circuits.opened = opened.append
        for _ in range(ENOUGH):
            await failing(fleet)
    assert opened == ["lost"]


@pytest.mark.parametrize("app", [FakeReplica(), FakeReplica([b"no"], 400), FakeReplica(headers={"x-mygo-retry": "full"}, status=503)])
async def test_answers_and_refusals_of_a_healthy_replica_open_none(app: FakeReplica) -> None:
    async with serving(app) as url, fleet_of(url) as fleet:
        for _ in range(2 * ENOUGH):
            await failing(fleet)
        assert fleet.directory.circuits.passes("a")


async def test_clients_that_leave_open_none() -> None:
    app = FakeReplica(silent=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        for number in range(2 * IN_A_ROW):
            sending = asyncio.create_task(fleet.client.send(CALL, fleet.ranked))
            await eventually(lambda: len(app.requests) == number + 1)  # noqa: B023
            sending.cancel()
            await asyncio.wait([sending])
        assert fleet.directory.circuits.passes("a")


# Ray's handle


async def test_without_a_direct_answer_the_handle_gives_one() -> None:
    handle = FakeHandle((200, {"content-type": "x"}), b"one", b"two")
    async with fleet_of(unused_url(), unused_url(), handle=handle) as fleet:
        answer = await fleet.client.send(CALL, fleet.ranked)
        assert (answer.status, answer.replica, await body_of(answer)) == (200, "", b"onetwo")
        assert fleet.suspended == {"a", "b"}
    assert handle.calls == [("POST", "/v1/x?a=1", {**CALL.headers, "x-mygo-ranking": "a,b"}, CALL.body)]


async def test_the_handle_is_not_given_the_secret() -> None:
    handle = FakeHandle((200, {}))
    async with fleet_of(handle=handle) as fleet:
        await fleet.client.send(CALL, [])
    assert SECRET not in str(handle.calls)


FAILING = {"error": [RuntimeError("no replicas")], "end": [], "retry": [(503, {"x-mygo-retry": "1"}), b"draining"]}


@pytest.mark.parametrize("items", FAILING.values(), ids=FAILING.keys())
async def test_when_the_handle_fails_too_there_is_no_replica(items: list[Any]) -> None:
    async with fleet_of(unused_url(), handle=FakeHandle(*items)) as fleet:
        with pytest.raises(NoReplicaError):
            await fleet.client.send(CALL, fleet.ranked)


async def test_a_handle_that_hangs_is_given_up_and_its_request_cancelled() -> None:
    async with fleet_of(handle=FakeHandle(None), silence_s=0.02) as fleet:
        with pytest.raises(ReplicaLostError):
            await asyncio.wait_for(fleet.client.send(CALL, []), 5)
        assert fleet.handle.cancelled


async def test_a_client_that_leaves_while_the_handle_waits_cancels_the_request() -> None:
    async with fleet_of(handle=FakeHandle(None)) as fleet:
        sending = asyncio.create_task(fleet.client.send(CALL, []))
        await eventually(lambda: bool(fleet.handle.calls))
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        assert fleet.handle.cancelled


async def test_closing_the_handles_answer_cancels_the_request() -> None:
    async with fleet_of(handle=FakeHandle((200, {}), b"first", None)) as fleet:
        answer = await fleet.client.send(CALL, [])
        assert await anext(answer.chunks()) == b"first"
        await answer.close()
        assert fleet.handle.cancelled


async def test_a_handle_that_fails_within_an_answer_loses_it() -> None:
    async with fleet_of(handle=FakeHandle((200, {}), b"first", RuntimeError("actor died"))) as fleet:
        answer = await fleet.client.send(CALL, [])
        with pytest.raises(ReplicaLostError):
            await body_of(answer)


# Probing


async def test_a_probe_asks_one_replica_and_no_other() -> None:
    app = FakeReplica([b"{}"])
    async with serving(app) as url, fleet_of(url) as fleet:
        assert await body_of(await fleet.client.probe(CALL, fleet.ranked[0])) == b"{}"
        dead = Replica("dead", unused_url(), 100, 16)
        with pytest.raises(NoReplicaError):
            await fleet.client.probe(CALL, dead)
        assert (fleet.suspended, fleet.handle.calls) == (set(), [])


async def test_a_probe_that_is_given_up_leaves_no_request_behind() -> None:
    app = FakeReplica(silent=True)
    async with serving(app) as url, fleet_of(url) as fleet:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fleet.client.probe(CALL, fleet.ranked[0]), 0.05)
        await eventually(lambda: app.left == 1)
