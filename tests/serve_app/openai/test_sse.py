"""Server-sent events: however a stream is cut into chunks, the same comes out."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.openai.sse import DONE, END, StreamCopy, WholeEvents, event, payloads

USAGE = {"prompt_tokens": 1, "total_tokens": 2, "completion_tokens": 1}
USAGE_ONLY = event({"id": "x", "choices": [], "usage": USAGE})
TRAPS = ['"choices":[]', '{"choices":[],"usage":{}}', "data: [DONE]\n\n", "\n\n", "\n", "data: ", "é\u2028😀"]

texts = st.text() | st.sampled_from(TRAPS) | st.lists(st.sampled_from(TRAPS)).map("".join)


def chunk_event(text: str) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "delta": {"content": text}}], "usage": None})


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in itertools.pairwise(places)]


cut_places = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(texts, max_size=5), cut_places)
def test_only_the_usage_event_is_removed_however_the_stream_is_cut(said: list[str], cuts: list[int]) -> None:
    kept = b"".join(chunk_event(text) for text in said)
    usage = WholeEvents()
    passed = b"".join(usage.feed(piece) for piece in pieces(kept + USAGE_ONLY + DONE, cuts))
    assert passed == kept + DONE


@given(st.lists(texts, min_size=1, max_size=3))
def test_an_event_passes_as_soon_as_it_is_complete(said: list[str]) -> None:
    usage = WholeEvents()
    for text in said:
        raw = chunk_event(text)
        assert usage.feed(raw[:-1]) == b""
        assert usage.feed(raw[-1:]) == raw


@given(st.lists(texts, min_size=1, max_size=5), cut_places)
def test_who_asks_for_the_usage_gets_null_in_every_other_event(said: list[str], cuts: list[int]) -> None:
    raw = b"".join(event({"choices": [{"index": 0, "text": text}], "prompt_token_ids": None}) for text in said)
    asked = WholeEvents(drop_usage=False, null_usage=True)
    passed = b"".join(asked.feed(piece) for piece in pieces(raw + USAGE_ONLY + DONE, cuts))
    *chunks, usage, done = payloads(passed)
    assert [msgspec.json.decode(chunk) for chunk in chunks] == [{**msgspec.json.decode(each), "usage": None} for each in payloads(raw)]
    assert [usage, done] == [*payloads(USAGE_ONLY + DONE)]


@pytest.mark.parametrize("value", [{"error": {"message": "lost"}}, ["x"], {}], ids=str)
def test_what_is_no_chunk_gets_no_usage(value: Any) -> None:
    assert WholeEvents(drop_usage=False, null_usage=True).feed(event(value)) == event(value)


OTHER_EVENTS: list[Any] = [
    {"choices": [], "prompt_filter_results": []},
    {"choices": [], "usage": None},
    {"error": {"message": 'contains "choices":[]'}},
    {"choices": [{"index": 0, "text": '"choices":[]'}], "usage": USAGE},
    {"x": {"choices": []}, "usage": USAGE},
    ["choices", []],
]


@pytest.mark.parametrize("value", OTHER_EVENTS, ids=str)
def test_other_events_are_not_removed(value: Any) -> None:
    assert WholeEvents().feed(event(value)) == event(value)


@pytest.mark.parametrize("raw", [b': "choices":[]\n\n', b'data: {"choices":[], broken\n\n', b'data: {"choices":[]\n\n', b"\n\n"])
def test_what_is_no_json_event_passes(raw: bytes) -> None:
    assert WholeEvents().feed(raw) == raw


@given(st.lists(texts, max_size=5), cut_places)
def test_a_copy_is_complete_with_its_last_byte_and_not_before(said: list[str], cuts: list[int]) -> None:
    raw = b"".join(chunk_event(text) for text in said) + DONE
    copy = StreamCopy(len(raw))
    parts = pieces(raw, cuts)
    assert [copy.feed(part) for part in parts] == [False] * (len(parts) - 1) + [True]
    assert copy.raw == raw


@given(st.lists(texts, min_size=1, max_size=3), cut_places, st.integers(0, 10_000))
def test_a_copy_that_would_be_too_long_is_never_complete(said: list[str], cuts: list[int], room: int) -> None:
    raw = b"".join(chunk_event(text) for text in said) + DONE
    copy = StreamCopy(room % len(raw))
    assert not any(copy.feed(part) for part in pieces(raw, cuts))
    assert len(copy.raw) <= room


def test_a_copy_that_gave_up_holds_nothing_and_stays_so() -> None:
    copy = StreamCopy(len(DONE) + 1)
    copy.feed(b"x" * 100)
    assert copy.raw == b""
    assert not copy.feed(DONE)


def test_a_broken_off_stream_is_not_complete() -> None:
    copy = StreamCopy(1000)
    assert not copy.feed(chunk_event("a"))
    assert not copy.feed(DONE[:-1])


@given(st.lists(texts, max_size=5))
def test_payloads_are_those_of_the_events(said: list[str]) -> None:
    events = [chunk_event(text) for text in said]
    expected = [each.removeprefix(b"data: ").removesuffix(END) for each in events]
    assert list(payloads(b"".join(events) + b": a comment" + END + DONE)) == [*expected, b"[DONE]"]
