"""Metrics that a test reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class RecordedMetrics:
    """What was counted, in order."""

    requests: list[tuple[str, int, str]] = field(default_factory=list)
    first_bytes: list[float | None] = field(default_factory=list)
    lookups: list[tuple[str, str]] = field(default_factory=list)
    operations: list[tuple[str, str]] = field(default_factory=list)
    staged: list[set[str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    content_matches: list[tuple[str, str]] = field(default_factory=list)
    predictions: list[tuple[int, int, int]] = field(default_factory=list)

    def prediction(self, predicted: int, cached: int, prompt_tokens: int) -> None:
        self.predictions.append((predicted, cached, prompt_tokens))

    def trust(self, is_trusted: bool) -> None:
        self.trusted = is_trusted

    def kept(self, event: str, count: int = 1) -> None: ...

    def planned(self, displacement: int) -> None: ...

    def head_start(self, used: int, wasted: int) -> None: ...

    def request(self, route: str, status: int, cache: str, duration_s: float, first_byte_s: float | None) -> None:
        self.requests.append((route, status, cache))
        self.first_bytes.append(first_byte_s)

    def cache(self, tier: str, outcome: str) -> None:
        self.lookups.append((tier, outcome))

    def stages(self, seconds: Mapping[str, float]) -> None:
        self.staged.append(set(seconds))

    def operation(self, what: str, outcome: str) -> None:
        self.operations.append((what, outcome))

    def write_skipped(self, reason: str) -> None:
        self.skipped.append(reason)

    def content(self, rule: str, action: str, times: int = 1) -> None:
        self.content_matches += [(rule, action)] * times

    def disconnected(self, route: str) -> None:
        self.left.append(route)
