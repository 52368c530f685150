"""One API request on its way through the engine: its choices, and the mailbox that the engine drops their tokens into."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from deployments.engines.simulated.blocks import TokenSequence
from deployments.engines.simulated.scheduler import Request
from deployments.engines.simulated.text import Answer, Limits, compose


@dataclass(frozen=True, slots=True)
class Task:
    """What to generate: `n` choices for each prompt. Choice `i` answers prompt `i // n`."""

    prompts: list[tuple[list[int], Limits]]
    n: int = 1
    seed: int = 0
    cache_salt: str | None = None
    max_offload_tokens: int | None = None
    adapter: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Choice(Request):
    """One answer to one prompt."""

    generation: "Generation"
    index: int
    answer: Answer


class ClientGoneError(Exception):
    """The client has left; nobody reads the answer."""


class Generation:
    """Tokens arrive by `push`, from the engine; one handler waits for them with `take`."""

    def __init__(self, task: Task, block_size: int, on_close: Callable[["Generation"], None]) -> None:
        self.task = task
        self.choices = [self._choice(index, block_size) for index in range(len(task.prompts) * task.n)]
        self._on_close = on_close
        self._arrived: list[int] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt) for prompt, _ in self.task.prompts)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all choices when they are complete."""
        return sum(choice.answer_tokens for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the cache; counted once for a prompt with several choices."""
        return sum(choice.cached_tokens or 0 for choice in self.choices[:: self.task.n])

    def push(self, index: int) -> None:
        """The choice with this index has one more token."""
        self._arrived.append(index)
        self._wake()

    def fail(self, error: Exception) -> None:
        """`take` raises `error` from now on, once it has returned what arrived before: a stop does not cost finished answers their end."""
        self._error = self._error or error
        self._wake()

    async def take(self) -> list[int]:
        """Indices of the choices that got a token since the last call, one entry a token; waits until there is one."""
        while self._error is None and not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None and not self._arrived:
            raise self._error
        arrived, self._arrived = self._arrived, []
        return arrived

    async def finish(self) -> None:
        """Waits for every token of every choice."""
        missing = self.completion_tokens
        while missing:
            missing -= len(await self.take())

    def close(self) -> None:
        """Ends what still runs; harmless afterwards."""
        self._on_close(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _choice(self, index: int, block_size: int) -> Choice:
        prompt, limits = self.task.prompts[index // self.task.n]
        answer = compose(prompt, limits, seed=self.task.seed, index=index % self.task.n, adapter=self.task.adapter)
        return Choice(
            sequence=TokenSequence([*prompt, *answer.tokens], block_size, self.task.cache_salt, self.task.adapter),
            prompt_tokens=len(prompt),
            answer_tokens=len(answer.tokens),
            max_offload_tokens=self.task.max_offload_tokens,
            generation=self,
            index=index,
            answer=answer,
        )
