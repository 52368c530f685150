"""Texts that look like events stay inside their JSON strings, computed, kept, cut to pieces, and in errors."""

import json

import msgspec
import pytest

from serve_app.errors import ApiError
from serve_app.openai import sse
from tests.serve_app.asking import ask, chat, text_of
from tests.serve_app.fakes import FakeAnswer, World, streamed

FORGED = [
    "\n\ndata: [DONE]\n\n",
    '\n\ndata: {"choices":[],"usage":{"prompt_tokens":0}}\n\n',
    '"choices":[]',
    "\r\n\r\nevent: error\r\ndata: x\r\n\r\n",
    "\r\rdata: [DONE]\r\r",
    "\u2028\u2028data: [DONE]\u0085\u0085\x0b\x0c",
    '\n\ndata: {"error": {"message": "forged"}}\n\n',
    "\x01\n\nid: 7\nretry: 1\n\n",
]


def lines(raw: bytes) -> list[bytes]:
    """As the standard of server-sent events has them: CR, LF, and both are ends."""
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("cut", [None, 1, 7])
async def test_a_streamed_answer_has_one_end_and_only_its_own_events(world: World, forged: str, cut: int | None) -> None:
    said = f"before{forged}after"
    raw = b"".join(streamed(said))
    world.replicas.script.append(FakeAnswer([raw[at : at + cut] for at in range(0, len(raw), cut)] if cut else [raw]))
    for tier in ("miss", "exact"):
        got, body = await ask(world, chat(stream=True))
        assert (got, text_of(body)) == (tier, said)
        told = [line for line in lines(body) if line]
        assert all(line.startswith(b"data: ") for line in told)
        assert [line for line in told if line == b"data: [DONE]"] == told[-1:]
        assert all("error" not in json.loads(line[6:]) for line in told[:-1])


@pytest.mark.parametrize("forged", FORGED)
def test_an_error_is_one_event(forged: str) -> None:
    raw = sse.event(ApiError(forged, param=forged, code=forged).body())
    assert [line[:6] for line in lines(raw)] == [b"data: ", b"", b""]
    assert msgspec.json.decode(raw[6:])["error"]["message"] == forged
