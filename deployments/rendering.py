"""Prompts' tokens, from the engines' own templates and tokenizers, each replica asked in its turn."""

import asyncio
import contextlib
import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from cachetools import LRUCache

from cache.prefix.keys import Tokens
from deployments.errors import DeploymentError, RenderError
from deployments.head_start import HeadStart
from deployments.private_app import NO_PROMPT
from deployments.replica_client import Call, ReplicaClient
from deployments.replicas import Replica
from deployments.reports import ENCODE_PATH, RENDER_PATH, TARGET_HEADER
from retrieval.joining import BRACKET, mark, separated, split, without_bracket
from retrieval.order import Order, Ranks
from retrieval.planner import Pieces
from retrieval.prompt import ALPHABET, LABEL_CHARS

log = logging.getLogger("ray.serve")

LIMIT_S = 2.0
USUAL_S = 0.002
"""What rendering is thought to take at first."""
FORGET_S = 5.0
"""Half-life of what is beyond that, while nobody renders."""
SHORT_BYTES = 16 * 1024
"""What longer requests take says what a byte takes, and not what a request does."""
BLOCK_BYTES = 64 * 1024 * 1024
"""Of documents' tokens that are remembered."""
_SMOOTHING = 0.05
_CHECKED, _CHECK_EVERY = 3, 256
"""Joined prompts are compared with rendered ones at first, and then now and then."""


@dataclass(frozen=True, slots=True)
class DocumentChat:
    """A chat with documents, whose order is not decided yet."""

    blocks: Sequence[str]
    """The documents as they stand in the prompt, best first."""
    labels: Sequence[str]
    ranks: Ranks
    with_text: Callable[[str], Call]
    """The request with this text in the place of the blocks."""
    head_start: HeadStart | None = None
    """What was begun with while its documents were searched for."""
    whose: str = ""
    """The namespace that the documents are of: their tokens are remembered for it alone, lest the time tell others that it has them."""

    def ordered(self, order: Order) -> Call:
        return self.with_text("".join(self.blocks[hit] for hit in order))


class Renderer:
    """One for each ingress, in its event loop."""

    def __init__(self, client: ReplicaClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._turn = 0
        self._mean_s = USUAL_S
        """Moving average of what rendering takes, but for long requests."""
        self._byte_s = 0.0
        """What each byte of a long one takes beyond that."""
        self._asked_at = clock()
        self._mark = mark("".join(secrets.choice(ALPHABET) for _ in range(2 * LABEL_CHARS)))
        self._mark_tokens: Tokens | None = None
        self._blocks: LRUCache[bytes, Tokens] = LRUCache(BLOCK_BYTES, getsizeof=lambda tokens: tokens.nbytes + 200)
        self._joined = 0
        self.joins = True
        """Joined tokens were those of the joined text whenever they were compared."""

    @property
    def typical_s(self) -> float:
        """What rendering a short request takes. A long time is forgotten: while it is thought to take too long nobody renders, and nothing
        is learnt.
        """
        age_s = self._clock() - self._asked_at
        return min(self._mean_s, USUAL_S) + max(self._mean_s - USUAL_S, 0.0) * math.exp2(-age_s / FORGET_S)

    def expected_s(self, size: int) -> float:
        """What rendering a request of so many bytes takes."""
        return self.typical_s + self._byte_s * max(size - SHORT_BYTES, 0)

    def _took(self, seconds: float, size: int = 0) -> None:
        if size > 2 * SHORT_BYTES:  # one tenant's long prompts are not to turn rendering off for others' short ones
            self._byte_s += _SMOOTHING * (max(seconds - self.typical_s, 0.0) / (size - SHORT_BYTES) - self._byte_s)
            return
        self._mean_s = self.typical_s + _SMOOTHING * (seconds - self.typical_s)
        self._asked_at = self._clock()

    async def prompt(self, replicas: Sequence[Replica], call: Call) -> Tokens | None:
        """The tokens of a request's prompt; None if they could not be had, for whatever reason."""
        with contextlib.suppress(RenderError):
            return await self.tokens(replicas, call)
        return None

    async def tokens(self, replicas: Sequence[Replica], call: Call) -> Tokens | None:
        """The tokens of a request's prompt; None if the engine makes no prompt of it. Raises `RenderError`."""
        began = self._clock()
        tokens = await self._asked(replicas, RENDER_PATH, {TARGET_HEADER: call.path}, call.body)
        self._took(self._clock() - began, len(call.body))
        return tokens

    async def pieces(self, replicas: Sequence[Replica], chat: DocumentChat) -> Pieces | None:
        """The tokens of a chat's parts. None: they cannot be joined, or could not be had."""
        if not self.joins:
            return None
        frame, known = await asyncio.gather(
            self.prompt(replicas, chat.with_text(self._mark)), self._encode(replicas, chat.blocks, chat.whose)
        )
        ends = split(frame, self._mark_tokens) if frame is not None and known and self._mark_tokens is not None else None
        if ends is None:
            return None
        pieces = Pieces(ends[0], known, ends[1], chat.labels)
        return pieces if await self._is_right(replicas, chat, pieces) else None

    async def lengths(self, replicas: Sequence[Replica], chat: DocumentChat) -> tuple[int, list[int]] | None:
        """Tokens of the prompt without the documents, and of each document: exact, or, where they cannot be joined, within a few.

        None: they could not be had.
        """
        pieces = await self.pieces(replicas, chat)
        if pieces is not None:
            return len(pieces.head) + len(pieces.tail), [len(tokens) for tokens in pieces.documents]
        encoding = self._ask(replicas, ENCODE_PATH, {}, msgspec.json.encode(chat.blocks))
        frame, numbers = await asyncio.gather(self.prompt(replicas, chat.with_text("")), encoding)
        try:
            encoded = None if numbers is None else separated(numbers, len(chat.blocks))
        except ValueError:
            return None
        return None if frame is None or encoded is None else (len(frame), [len(tokens) for tokens in encoded])

    def _give_up(self) -> None:
        if self.joins:
            self.joins = False
            log.error("this model's tokenizer does not cut prompts where documents begin, so documents stay in the order of their ranks")

    async def _is_right(self, replicas: Sequence[Replica], chat: DocumentChat, pieces: Pieces) -> bool:
        self._joined += 1
        if self._joined > _CHECKED and self._joined % _CHECK_EVERY:
            return True
        in_order = tuple(range(len(chat.blocks)))
        rendered = await self.prompt(replicas, chat.ordered(in_order))
        if rendered is not None and not np.array_equal(rendered, pieces.joined(in_order)):
            self._give_up()
        return self.joins

    async def _encode(self, replicas: Sequence[Replica], blocks: Sequence[str], whose: str) -> list[Tokens]:
        """Empty: they could not be had."""
        known = {block: tokens for block in blocks if (tokens := self._blocks.get(_name(block, whose))) is not None}
        missing = [block for block in dict.fromkeys(blocks) if block not in known]
        if (missing or self._mark_tokens is None) and not await self._learn(replicas, missing, known, whose):
            return []
        return [known[block] for block in blocks]

    async def _learn(self, replicas: Sequence[Replica], missing: Sequence[str], known: dict[str, Tokens], whose: str) -> bool:
        texts = [BRACKET, *(text + BRACKET for text in (self._mark, *missing))]
        numbers = await self._ask(replicas, ENCODE_PATH, {}, msgspec.json.encode(texts))
        if numbers is None:
            return False
        try:
            bracket, *encoded = separated(numbers, len(texts))
        except ValueError:
            return False
        for text, tokens in zip((self._mark, *missing), encoded, strict=True):
            alone = without_bracket(tokens, bracket)
            if alone is None:
                if text == self._mark:  # no document, which is a tenant's, may turn planning off for all
                    self._give_up()
                return False
            known[text] = alone
        self._mark_tokens = known.pop(self._mark)
        for block in missing:
            if self._blocks.getsizeof(known[block]) <= self._blocks.maxsize:
                self._blocks[_name(block, whose)] = known[block].copy()  # it is a part of all that was answered together
        return True

    async def _ask(self, replicas: Sequence[Replica], path: str, headers: Mapping[str, str], body: bytes) -> Tokens | None:
        """None: they could not be had, for whatever reason."""
        with contextlib.suppress(RenderError):
            return await self._asked(replicas, path, headers, body)
        return None

    async def _asked(self, replicas: Sequence[Replica], path: str, headers: Mapping[str, str], body: bytes) -> Tokens | None:
        """None: the engine has none for this. Raises `RenderError`, which counts as taking all the time that there is."""
        self._turn += 1
        replica = replicas[self._turn % len(replicas)]
        try:
            async with asyncio.timeout(LIMIT_S):
                answer = await self._client.probe(Call("POST", path, headers, body), replica)
                try:
                    raw = b"".join([chunk async for chunk in answer.chunks()])
                finally:
                    await answer.close()
            if answer.status == NO_PROMPT:
                return None
            if answer.status != 200:
                raise RenderError(f"the replica answered with the status {answer.status}")
            return np.frombuffer(raw, np.uint32)
        except (DeploymentError, TimeoutError, ValueError) as error:
            self._took(LIMIT_S, len(body))
            log.warning("a prompt was not rendered", extra={"replica": replica.id, "error": type(error).__name__})
            raise RenderError("a prompt's tokens could not be had") from error


def _name(block: str, whose: str) -> bytes:
    """Of a block in memory: its text would take more than its tokens. No namespace has a slash."""
    return hashlib.sha256(f"{whose}/{block}".encode()).digest()
