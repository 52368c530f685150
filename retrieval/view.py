"""What a whole search sees: one version of each of its collections."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cache.entry import Vector
from retrieval.collection import Collection
from retrieval.filters import Filter
from retrieval.indexes.base import Found
from retrieval.result_cache import SearchKey


@dataclass(frozen=True, slots=True)
class Asked:
    """All of a search but where."""

    queries: Sequence[str]
    top_k: int
    filters: Filter | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Both by the collections' ids; `scopes` are the namespaces that they live in. Rows of different collections have different numbers."""

    collections: Mapping[str, Collection]
    scopes: Mapping[str, str]

    @property
    def versions(self) -> dict[str, int]:
        return {store_id: collection.version for store_id, collection in self.collections.items()}

    def key(self, asked: Asked) -> SearchKey:
        """Members of a group share what is found in the group's collections."""
        ordered = sorted(self.collections)
        return SearchKey(
            access=",".join(self.scopes[store_id] for store_id in ordered),
            stores=tuple(f"{store_id}/{self.collections[store_id].number}" for store_id in ordered),
            versions=tuple(self.collections[store_id].version for store_id in ordered),
            top_k=asked.top_k,
            filters="" if asked.filters is None else asked.filters.digest,
            threshold=asked.threshold,
        )

    def search(self, vector: Vector, asked: Asked) -> list[Found]:
        """The `top_k` nearest rows of each collection, best first."""
        return _merged([each.search(vector, asked.top_k, asked.filters) for each in self.collections.values()], asked)

    def stages(self, vector: Vector, asked: Asked) -> Iterator[list[Found]]:
        """The same after each stage, as far as it has come. There is at least one."""
        walks = dict(enumerate(each.stages(vector, asked.top_k, asked.filters) for each in self.collections.values()))
        latest = [next(walk) for walk in walks.values()]
        yield _merged(latest, asked)
        while walks:
            for place, walk in list(walks.items()):
                stage = next(walk, None)
                if stage is None:
                    del walks[place]
                else:
                    latest[place] = stage
            if walks:
                yield _merged(latest, asked)


def _merged(latest: Sequence[Sequence[Found]], asked: Asked) -> list[Found]:
    close = [each for found in latest for each in found if asked.threshold is None or each.score >= asked.threshold]
    return sorted(close, key=lambda each: (-each.score, each.row))
