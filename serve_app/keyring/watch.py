"""What one ingress process remembers of keys, so that a request with a known one waits for no database."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

from serve_app.coalesce import Coalesced
from serve_app.errors import AuthenticationError, KeyringError
from serve_app.keyring import secret
from serve_app.keyring.settings import TenantSettings
from serve_app.keyring.store import KeyStore, Known
from serve_app.tenants import Principal

log = logging.getLogger("ray.serve")

T = TypeVar("T")
POLL_S = 1.0
"""Between two looks whether anything has changed."""
CALL_LIMIT_S = 4.0
"""For the database."""
FLUSH_S = 60.0
"""Between two notes of when keys were used."""
MAX_REMEMBERED = 10_000
"""Good keys, and as many texts that are none."""
THREADS = 4


@dataclass(frozen=True, slots=True)
class _Good:
    principal: Principal
    until: float
    """The text is good for so long, in seconds since the epoch."""


class Keyring:
    """Belongs to an event loop, in which `run` must run.

    A change of a key, by whatever process, is seen `POLL_S` seconds later and what the database takes; then everything is read anew. While
    it does not answer, keys that are remembered are good for `grace_s` seconds, and no other is let in. `clock` gives seconds since the
    epoch, `timer` seconds that never go back.
    """

    def __init__(
        self, store: KeyStore, grace_s: float, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self._grace_s = grace_s
        self._clock = clock
        self._timer = timer
        self._threads = ThreadPoolExecutor(THREADS, "keyring")
        self._reads = Coalesced()
        self._good: OrderedDict[bytes, _Good] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._revision: int | None = None
        self._looked_at = float("-inf")
        """When the revision was asked for that is known, on `timer`."""
        self._stamps = count(1)
        self._used: dict[str, float] = {}
        self._flushed_at = timer()

    def known(self, text: str) -> Principal | None:
        """Who has this key, if that is remembered. None: ask `principal`."""
        name = _name(text)
        found = self._good.get(name)
        if found is None or not self._is_up_to_date() or self._clock() >= found.until:
            return None
        self._good.move_to_end(name)
        self._used[found.principal.key_id] = self._clock()
        return found.principal

    async def principal(self, text: str) -> Principal:
        """Who has this key. Raises `AuthenticationError`, and `KeyringError` while that cannot be found out."""
        found, name = self.known(text), _name(text)
        key_id = secret.id_of(text)
        if found is None and key_id is not None and not (name in self._refused and self._is_up_to_date()):
            found = await self._reads.read(name, lambda: self._read(key_id, text, name), 2 * CALL_LIMIT_S)
        if found is None:
            raise AuthenticationError("The key is unknown, revoked or expired.", code="invalid_api_key")
        return found

    async def run(self) -> None:
        """Looks for changes until it is cancelled."""
        while True:
            try:
                await self.look()
            except KeyringError as error:
                log.warning("the database of the keys did not answer", extra={"error": str(error)})
            except Exception:  # whatever it is: who stops looking sees no revocation until the grace is over
                log.exception("changes of keys could not be looked for")
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Forgets everything if anything has changed. Raises `KeyringError`."""
        if self._timer() - self._flushed_at >= FLUSH_S:
            await self.flush()
        asked_at = self._timer()
        self._saw(await self.call(self.store.revision), asked_at)

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        """What a call of the store gives. Raises what it raises, and `KeyringError` if it takes too long."""
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args))
        except TimeoutError:
            raise KeyringError("the database did not answer in time") from None

    def forget(self) -> None:
        """To be called after a change of this process's own, so that it holds here at once."""
        self._good.clear()
        self._refused.clear()
        self._revision = None

    async def flush(self) -> None:
        """Notes when keys were used. What cannot be noted is lost."""
        used, self._used, self._flushed_at = self._used, {}, self._timer()
        try:
            await self.call(self.store.used, used)
        except KeyringError as error:
            log.warning("uses of keys were not noted", extra={"keys": len(used), "error": str(error)})

    async def close(self) -> None:
        await self.flush()
        self._threads.shutdown(wait=False)
        self.store.close()

    async def _read(self, key_id: str, text: str, name: bytes) -> Principal | None:
        """What the database says of a text, which is remembered. None: it is no good key."""
        asked_at = self._timer()
        # The revision first: what is read of the key is then at least as new, and a change that is not in it is seen at the next look.
        self._saw(await self.call(self.store.revision), asked_at)
        found = await self.call(self.store.find, key_id)
        until = 0.0 if found is None else _good_until(found[0], text)
        if found is None or until <= self._clock():
            _remember(self._refused, name, None)
            return None
        principal = self._principal(*found)
        _remember(self._good, name, _Good(principal, until))
        self._used[principal.key_id] = self._clock()
        return principal

    def _principal(self, known: Known, shared: TenantSettings) -> Principal:
        settings = known.info.settings
        return Principal(
            tenant=settings.tenant,
            key_id=known.info.id,
            role=settings.role,
            models=None if settings.models is None else frozenset(settings.models),
            groups=None if settings.groups is None else frozenset(settings.groups),
            cache=settings.cache,
            limits=settings.limits,
            shared=shared,
            stamp=next(self._stamps),
        )

    def _saw(self, revision: int, asked_at: float) -> None:
        if revision != self._revision:
            self.forget()
            self._revision = revision
        self._looked_at = max(self._looked_at, asked_at)

    def _is_up_to_date(self) -> bool:
        return self._timer() - self._looked_at <= self._grace_s


def _name(text: str) -> bytes:
    """What a text is remembered by: the texts themselves are not."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _good_until(known: Known, text: str) -> float:
    """0: it is not good."""
    digest, expires_at = secret.digest(text), known.info.settings.expires_at
    if known.info.revoked_at is not None:
        return 0.0
    until = float("inf") if expires_at is None else float(expires_at)
    is_current = hmac.compare_digest(digest, known.digest)
    is_old = known.old_digest is not None and hmac.compare_digest(digest, known.old_digest)
    if is_current:
        return until
    return min(until, known.old_until) if is_old else 0.0


def _remember(memory: OrderedDict[bytes, T], name: bytes, value: T) -> None:
    memory[name] = value
    memory.move_to_end(name)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
