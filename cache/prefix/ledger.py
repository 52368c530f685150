"""What is under way on a replica, as seen by whoever sends requests there or takes them in.

Prefills are computed in their order of arrival, so the work that lies before a new one is the sum of what was admitted and has not
answered yet, less what of the oldest is done.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from cache.prefix.profile import Sample

_ENOUGH_TOKENS = 2048
"""A sample covers this many uncached tokens, or a whole busy period: single prefills in one batch cannot be told apart."""


@dataclass(slots=True, eq=False)
class Work:
    """One request on one replica."""

    cached: int
    new: int
    """Prompt tokens to be computed."""
    seconds: float
    """Predicted time of the prefill."""
    is_whole: bool = False
    """The answer comes in one piece, so nobody sees its first token."""
    is_known: bool = True
    """How many tokens there are, and how many of them are cached; else nothing can be learnt from it."""
    is_prefilled: bool = False
    is_over: bool = False


@dataclass(slots=True)
class Ledger:
    """Of one replica. What others send there is told by the replica itself (`others_`)."""

    id: str
    learn: Callable[[Sample], None]
    waiting: dict[Work, None] = field(default_factory=dict)
    """In order of arrival; no token of their answers has come."""
    decoding: int = 0
    queued_s: float = 0.0
    """Predicted time of those that wait."""
    oldest_s: float = 0.0
    """Of it, the oldest one's."""
    since: float = 0.0
    """When the oldest one became the oldest."""
    settles_at: float = inf
    """When the oldest one is taken for done, if its answer comes in one piece."""
    others_backlog_s: float = 0.0
    others_at: float = inf
    """When that was told: what has been done of it since is not told before there is more."""
    others_waiting: int = 0
    others_decoding: int = 0
    _sample: Sample = field(default_factory=Sample)
    _is_known: bool = True
    _began: float = 0.0
    """When the first prefill of the sample became the oldest."""

    @property
    def ongoing(self) -> int:
        """With those of others."""
        return len(self.waiting) + self.decoding + self.others_waiting + self.others_decoding

    def told(self, backlog_s: float, waiting: int, decoding: int, now: float) -> None:
        """Of others' requests, by the replica."""
        if self.waiting and waiting < self.others_waiting:  # a prefill that came before: the oldest one's begins now
            self.since = now
            self._follow_oldest()
            if self._sample.new:
                self._is_known = False
            else:
                self._began = now
        self.others_backlog_s, self.others_waiting, self.others_decoding, self.others_at = backlog_s, waiting, decoding, now

    def settle(self, now: float) -> None:
        """Takes the prefills of answers in one piece for done when their predicted time is over."""
        while self.settles_at <= now:
            oldest = next(iter(self.waiting))
            oldest.is_prefilled = True
            self._leave(oldest, self.settles_at)
            self._begin(self.since)
            self.decoding += 1

    def backlog_s(self, now: float) -> float:
        """Seconds of prefill before a request that comes now."""
        if self.waiting:  # an engine does one thing at a time: what it has done is counted once
            return max(self.queued_s - min(now - self.since, self.oldest_s), 0.0) + self.others_backlog_s
        return max(self.others_backlog_s - max(now - self.others_at, 0.0), 0.0)

    def admit(self, work: Work, now: float) -> None:
        self.settle(now)
        if not self.waiting:
            self.since = now
            self._begin(now)
            self.queued_s = 0.0  # sums of floats leave rests
        self.waiting[work] = None
        self.queued_s += work.seconds
        if len(self.waiting) == 1:
            self._follow_oldest()

    def prefilled(self, work: Work, now: float) -> None:
        """The first token of its answer has come."""
        self.settle(now)
        if work.is_over or work.is_prefilled:
            return
        work.is_prefilled = True
        self._sample.add(work.cached, work.new, self.decoding + self.others_decoding)
        self._is_known = self._is_known and work.is_known
        is_next = self._leave(work, now)
        self.decoding += 1
        if is_next and (self._sample.new >= _ENOUGH_TOKENS or not self.waiting):
            self._sample.seconds = now - self._began
            if self._is_known:
                self.learn(self._sample)
            self._begin(now)

    def end(self, work: Work, now: float) -> None:
        """It has ended, or failed. Calling it twice is harmless."""
        if work.is_over:
            return
        work.is_over = True
        if work.is_prefilled:
            self.decoding -= 1
        elif self._leave(work, now):
            self._begin(now)  # part of the time went to a request that never answered

    def _begin(self, now: float) -> None:
        self._sample = Sample()
        self._is_known = True
        self._began = now

    def _leave(self, work: Work, now: float) -> bool:
        """Whether it was the oldest."""
        is_oldest = work is next(iter(self.waiting))
        del self.waiting[work]
        self.queued_s -= work.seconds
        if is_oldest:
            self.since = now
        elif work.is_prefilled:
            self.since = min(self.since + work.seconds, now)  # that much of the time was not the oldest one's
        self._follow_oldest()
        return is_oldest

    def _follow_oldest(self) -> None:
        oldest = next(iter(self.waiting), None)
        self.oldest_s = oldest.seconds if oldest else 0.0
        self.settles_at = self.since + oldest.seconds if oldest and oldest.is_whole else inf
