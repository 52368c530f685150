"""Who hears of what routing does, to count it."""

from typing import Protocol


class RoutingWatcher(Protocol):
    """Told without being waited for; never raises."""

    def prediction(self, predicted: int, cached: int, prompt_tokens: int) -> None:
        """Cached tokens that the router predicted for a request, those that the engine found, and how long the prompt was."""

    def trust(self, is_trusted: bool) -> None:
        """Whether the router goes by its predictions."""

    def planned(self, displacement: int) -> None:
        """Documents were put in order: the most places that one of them is from its rank."""

    def head_start(self, used: int, wasted: int) -> None:
        """One is over: the tokens that it computed for the request, and those for nothing."""

    def kept(self, event: str, count: int = 1) -> None:
        """Of prefixes that are kept: a replica was found for one (`placed`, or `moved` if it had another) or none has room (`full`), its
        replica was `lost`, it was `used` so that it is not evicted, and blocks of it were `recomputed`.
        """


class NoWatcher:
    """Nobody."""

    def prediction(self, predicted: int, cached: int, prompt_tokens: int) -> None: ...

    def trust(self, is_trusted: bool) -> None: ...

    def planned(self, displacement: int) -> None: ...

    def head_start(self, used: int, wasted: int) -> None: ...

    def kept(self, event: str, count: int = 1) -> None: ...
