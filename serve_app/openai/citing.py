"""Answers with numbered citations, whole or as a stream, and where each one points."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import msgspec

from retrieval.citations import Citation, Citer
from retrieval.documents import SearchHit
from retrieval.prompt import labels
from serve_app.openai.sse import DONE, END, WholeEvents, event, payloads
from serve_app.replies import Reply

Style = Literal["numbers", "ids", "labels"]
"""What an answer cites by: numbers, chunk ids, or the labels of the prompt as the model wrote them."""


class Citing:
    """One reply's citations."""

    def __init__(self, hits: tuple[SearchHit, ...], style: Style) -> None:
        self._hits = hits
        self._labels = labels(hits)
        self._style = style
        self._citers: defaultdict[int, Citer] = defaultdict(self._citer)

    def whole(self, raw: bytes) -> bytes:
        """A chat's answer in one piece; what is none stays as it is."""
        try:
            answer = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError:
            return raw
        for choice in answer.get("choices") or ():
            self._rewrite(choice["index"], choice.get("message") or {}, is_last=True)
        return msgspec.json.encode(answer)

    def events(self, raw: bytes) -> bytes:
        """Whole events of a stream."""
        return b"".join(self._event(payload) for payload in payloads(raw))

    def _event(self, payload: bytes) -> bytes:
        if payload == b"[DONE]":
            return DONE
        chunk = msgspec.json.decode(payload, type=dict[str, Any])
        if not chunk.get("choices"):
            return b"data: " + payload + END
        for choice in chunk["choices"]:
            self._rewrite(choice["index"], choice.get("delta") or {}, is_last=choice.get("finish_reason") is not None)
        return event(chunk)

    def _rewrite(self, index: int, message: dict[str, Any], is_last: bool) -> None:
        citer = self._citers[index]
        content = message.get("content")
        text, citations = citer.feed(content) if isinstance(content, str) else ("", [])
        rest = citer.end() if is_last else ""
        if isinstance(content, str) or rest:
            message["content"] = text + rest
        if citations:
            message["annotations"] = [*(message.get("annotations") or ()), *map(self._annotation, citations)]

    def _citer(self) -> Citer:
        if self._style == "labels":
            return Citer(self._labels, None)
        return Citer(self._labels, self._id if self._style == "ids" else lambda citation: str(citation.number))

    def _id(self, citation: Citation) -> str:
        return self._hits[citation.hit].chunk.id

    def _annotation(self, citation: Citation) -> dict[str, Any]:
        chunk = self._hits[citation.hit].chunk
        name = {"label": self._labels[citation.hit]} if self._style == "labels" else {"number": citation.number}
        named = {"file_id": chunk.document_id, "filename": chunk.filename, "chunk_id": chunk.id}
        return {"type": "file_citation", "index": citation.at, **name, **named}


def cited(reply: Reply, hits: tuple[SearchHit, ...], style: Style) -> Reply:
    """The reply to a chat that was given these documents, best first."""
    if reply.status != 200:
        return reply
    citing = Citing(hits, style)
    if not isinstance(reply.body, bytes):
        return replace(reply, body=_stream(citing, reply.body))
    is_stream = reply.body.startswith(b"data: ")
    return replace(reply, body=citing.events(reply.body) if is_stream else citing.whole(reply.body))


async def _stream(citing: Citing, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    events = WholeEvents(drop_usage=False)
    async for chunk in body:
        if whole := events.feed(chunk):
            yield citing.events(whole)
