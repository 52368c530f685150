"""Which parts of the application have answered since this process started."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

log = logging.getLogger("ray.serve")

RETRY_S = 1.0
State = Literal["starting", "ready", "failed"]


class Parts:
    """Asks each part until it answers. One that fails is reported, and asked again."""

    def __init__(self, asking: Mapping[str, Callable[[], Awaitable[Any]]]) -> None:
        self._asking = asking
        self.states: dict[str, State] = dict.fromkeys(asking, "starting")

    @property
    def settled(self) -> bool:
        """No part is still starting. A failed one does not hold the others back: requests are answered without it."""
        return "starting" not in self.states.values()

    async def ask_all(self) -> None:
        """Returns when every part has answered."""
        await asyncio.gather(*(self._ask(name, ask) for name, ask in self._asking.items()))

    async def _ask(self, name: str, ask: Callable[[], Awaitable[Any]]) -> None:
        while self.states[name] != "ready":
            try:
                await ask()
                self.states[name] = "ready"
            except Exception as error:  # a handle raises errors of many types
                if self.states[name] == "starting":
                    log.warning("a part of the application does not answer", extra={"part": name, "error": repr(error)[:500]})
                self.states[name] = "failed"
                await asyncio.sleep(RETRY_S)
