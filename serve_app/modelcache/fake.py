"""A cache in this process, for tests."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from cache.keys import fingerprint
from serve_app.modelcache.backend import Hit, Message, QueryRecord
from serve_app.modelcache.keytext import key_text, question_of

Partition = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    rest: str
    meaning: str
    answer: str


@dataclass
class MemoryBackend:
    """Texts that `means` maps to one meaning are equivalent; of several answers, the last one counts."""

    means: dict[str, str] = field(default_factory=dict)
    models: dict[Partition, dict[str, _Entry]] = field(default_factory=dict)
    records: list[QueryRecord] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def query(self, tenant: str | None, model: str, messages: Sequence[Message]) -> Hit | None:
        asked = self._entry(messages, "")
        for id_, kept in reversed(self.models.get((tenant, model), {}).items()):
            if (kept.rest, kept.meaning) == (asked.rest, asked.meaning):
                return Hit(id_, kept.key, kept.answer, 1.0 if kept.key == asked.key else 0.97)
        return None

    async def insert(self, tenant: str | None, model: str, items: Sequence[tuple[Sequence[Message], str]]) -> list[str]:
        new = {f"id-{next(self._numbers)}": self._entry(messages, answer) for messages, answer in items}
        self.models.setdefault((tenant, model), {}).update(new)
        return list(new)

    async def delete(self, tenant: str | None, model: str, ids: Sequence[str]) -> int:
        entries = self.models.get((tenant, model), {})
        return sum(1 for each in ids if entries.pop(each, None))

    async def truncate(self, tenant: str | None, model: str) -> int | None:
        entries = self.models.get((tenant, model))
        if entries is None:
            return None
        count = len(entries)
        entries.clear()
        return count

    async def register(self, tenant: str | None, model: str) -> bool:
        new = (tenant, model) not in self.models
        self.models.setdefault((tenant, model), {})
        return new

    async def log(self, records: Sequence[QueryRecord]) -> None:
        self.records += records

    def _entry(self, messages: Sequence[Message], answer: str) -> _Entry:
        question = question_of(messages)
        return _Entry(key_text(messages), fingerprint(question.rest), self.means.get(question.text, question.text), answer)
