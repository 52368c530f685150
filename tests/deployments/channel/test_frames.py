"""Frames come out as they went in, however the bytes were cut on their way."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.channel import frames
from deployments.channel.frames import MAX_GREETING, MAX_PAYLOAD, Decoder, Frame, Kind, Request, Start, frame
from deployments.errors import ChannelError

some_frames = st.lists(st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=20)


@given(some_frames, st.lists(st.integers(1, 50), max_size=200))
def test_any_cut_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame(Kind(each.kind), each.exchange, each.payload) for each in sent)
    decoder = Decoder()
    decoder.limit = MAX_PAYLOAD
    got: list[Frame] = []
    place = 0
    for cut in [*cuts, len(data)]:
        got += decoder.feed(data[place : place + cut])
        place += cut
    assert got == sent


def test_a_long_greeting_is_refused_before_it_has_come() -> None:
    decoder = Decoder()
    with pytest.raises(ChannelError):
        decoder.feed(frame(Kind.PROOF, payload=b"x" * (MAX_GREETING + 1))[:9])


headers = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5)


@given(st.builds(Request, st.text(max_size=5), st.text(max_size=20), headers, st.binary(max_size=100)))
def test_a_request_is_read_as_it_was_packed(request: Request) -> None:
    assert frames.unpack_request(frames.pack(request)) == request


@given(st.builds(Start, st.integers(100, 599), headers))
def test_a_start_is_read_as_it_was_packed(start: Start) -> None:
    assert frames.unpack_start(frames.pack(start)) == start


@given(st.binary(max_size=50))
def test_what_is_no_message_is_an_error(payload: bytes) -> None:
    for unpack in (frames.unpack_request, frames.unpack_start, frames.unpack_count):
        with contextlib.suppress(ChannelError):
            unpack(payload)  # raises nothing else


def test_a_proof_is_of_one_side_of_one_connection() -> None:
    proofs = {
        frames.proof(secret, side, url, server, client)
        for secret in (b"a", b"b")
        for side in ("client", "server")
        for url in ("tcp://a:1", "tcp://a:2")
        for server in (b"s" * 32, b"t" * 32)
        for client in (b"c" * 32, b"d" * 32)
    }
    assert len(proofs) == 32
