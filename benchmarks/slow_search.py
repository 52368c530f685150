"""The application with searches that are as slow as a benchmark wants: `import_path: benchmarks.slow_search:build`.

They find what the configured index finds. How long they take, and when they have a provisional result, is read anew for each search from
`PACE` in the data directory, so that one running application can be measured under several paces.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ray import serve

from cache.embedders.base import Embedder
from cache.entry import Vector
from deployments.retrieval import Retrieval
from retrieval.indexes.base import ChunkIndex, Found, RowIds, Selection, Slices
from retrieval.sources import IndexSource
from serve_app.app import application
from serve_app.config import load_config

PACE = "pace.json"


class Pace(NamedTuple):
    """Of each search. The usual one is the index's own."""

    seconds: float = 0.0
    first: float = 1.0
    """Share of that time after which there is a provisional result. 1: there is none."""
    agreement: float = 1.0
    """Chance that it is the final one. Else its last row is another one: the best of those that are not found."""


def set_pace(data_dir: Path, pace: Pace) -> None:
    """From now on."""
    new = data_dir / f"{PACE}.new"
    new.write_text(json.dumps(pace))
    new.replace(data_dir / PACE)


def pace_in(data_dir: Path) -> Pace:
    try:
        return Pace(*json.loads((data_dir / PACE).read_text()))
    except FileNotFoundError:
        return Pace()


class SlowIndex:
    """Searches another index, slowly. Equal queries agree or disagree equally."""

    def __init__(
        self,
        index: ChunkIndex,
        pace: Callable[[], Pace],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.index = index
        self._pace, self._clock, self._sleep = pace, clock, sleep

    @property
    def version(self) -> int:
        return self.index.version

    @property
    def dimension(self) -> int:
        return self.index.dimension

    @property
    def kind(self) -> str:
        return self.index.kind

    @property
    def rows(self) -> RowIds:
        return self.index.rows

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: RowIds) -> Selection:
        return self.index.select(rows)

    def search(self, vector: Vector, k: int, allowed: Selection | None = None) -> list[Found]:
        return list(self.stages(vector, k, allowed))[-1]

    def stages(self, vector: Vector, k: int, allowed: Selection | None = None) -> Iterator[list[Found]]:
        pace, began = self._pace(), self._clock()
        wide = self.index.search(vector, k + 1, allowed)
        if pace.first < 1:
            self._wait_until(began + pace.first * pace.seconds)
            agrees = random.Random(vector.tobytes()).random() < pace.agreement
            yield wide[:k] if agrees else [*wide[: k - 1], *wide[k:]]
        self._wait_until(began + pace.seconds)
        yield wide[:k]

    def _wait_until(self, at: float) -> None:
        self._sleep(max(at - self._clock(), 0))

    def changed(self, version: int, added: Slices, removed: RowIds) -> "SlowIndex":
        return SlowIndex(self.index.changed(version, added, removed), self._pace, self._clock, self._sleep)


class SlowSource:
    """Slow indexes of another source."""

    def __init__(self, source: IndexSource, pace: Callable[[], Pace]) -> None:
        self._source, self._pace = source, pace

    def opened(self, name: str, version: int) -> ChunkIndex | None:
        index = self._source.opened(name, version)
        return None if index is None else SlowIndex(index, self._pace)

    def made(self, name: str, version: int, slices: Callable[[], Slices]) -> ChunkIndex:
        return SlowIndex(self._source.made(name, version, slices), self._pace)

    def is_due(self, index: ChunkIndex) -> bool:
        return self._source.is_due(_within(index))

    def tended(self, name: str, index: ChunkIndex, is_stopping: Callable[[], bool]) -> ChunkIndex:
        return SlowIndex(self._source.tended(name, _within(index), is_stopping), self._pace)

    def forget(self, name: str) -> None:
        self._source.forget(name)

    def kept(self) -> list[str]:
        return self._source.kept()

    def close(self) -> None:
        self._source.close()


def _within(index: ChunkIndex) -> ChunkIndex:
    return index.index if isinstance(index, SlowIndex) else index


class SlowRetrieval(Retrieval):
    def _source(self, embedder: Embedder) -> IndexSource:
        return SlowSource(super()._source(embedder), partial(pace_in, self._data_dir))


def build(args: dict[str, Any]) -> serve.Application:
    """As `serve_app.app.build`."""
    return application(load_config(args), SlowRetrieval)
