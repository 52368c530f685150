"""How early a search knows its result: what overlapping it with prefill can gain."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from retrieval.indexes.base import Found


@dataclass(frozen=True, slots=True)
class Settled:
    """A search that was followed through its stages."""

    result: list[Found]
    seconds: list[float]
    """When each stage came, from the start on."""
    stage: int
    """The first one from which on the first rows were those of the result, in their order."""

    @property
    def known_s(self) -> float:
        """When the first rows were there for good."""
        return self.seconds[self.stage]

    @property
    def hidden_share(self) -> float:
        """Of the whole search's time, what is left when they are."""
        return 1 - self.known_s / self.seconds[-1] if self.seconds[-1] > 0 else 0.0


def follow(stages: Iterable[list[Found]], top: int, clock: Callable[[], float]) -> Settled:
    """Takes all stages of a search. Its result is known when its first `top` rows are."""
    began, results, seconds = clock(), list[list[Found]](), list[float]()
    for result in stages:
        seconds.append(clock() - began)
        results.append(result)
    last = _rows(results[-1], top)
    changed = [number for number, result in enumerate(results) if _rows(result, top) != last]
    return Settled(results[-1], seconds, changed[-1] + 1 if changed else 0)


def _rows(result: list[Found], top: int) -> list[int]:
    return [found.row for found in result[:top]]
