"""Which replicas of other deployments there are, as this process knows it.

Ray pickles a router class by value, so what the router and the rest of the process share must live in a module that
both import: this one.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from deployments.circuits import Circuits

SUSPENSION_S = 5.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that takes requests. The numbers are an LLM replica's."""

    id: str
    url: str
    """Of its private channel."""
    max_model_len: int = 0
    block_size: int = 0
    reuses_tokens: bool = False
    """Its engine takes a prompt's tokens beside the prompt, and need not render it again."""
    model: str = ""
    """The identity of what it serves: see `serve_app.identity`."""
    control_tokens: tuple[str, ...] = ()
    """See `Engine.control_tokens`."""
    max_running: int = 1 << 30
    """Requests that its engine works on at once."""

    @classmethod
    def from_metadata(cls, replica_id: str, metadata: dict[str, Any]) -> "Replica":
        return cls(
            replica_id,
            metadata["url"],
            metadata.get("max_model_len", 0),
            metadata.get("block_size", 0),
            metadata.get("reuses_tokens", False),
            metadata.get("model", ""),
            tuple(metadata.get("control_tokens", ())),
            metadata.get("max_running", 1 << 30),
        )


class ReplicaDirectory:
    """The replicas of one deployment. Written by Ray's router, possibly in another thread; read by the ingress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._announced: tuple[Replica, ...] = ()
        self._replicas: tuple[Replica, ...] = ()
        self._model: str | None = None
        self._suspended: dict[str, float] = {}
        self._silent: set[str] = set()
        self.circuits = Circuits(clock)

    @property
    def known(self) -> tuple[Replica, ...]:
        """All of them that serve the required model."""
        return self._replicas

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Those to send requests to; the least bad ones where none is fit."""
        now, passes = self._clock(), self.circuits.passes
        fit = tuple(
            each for each in self._replicas if self._suspended.get(each.id, 0) <= now and each.id not in self._silent and passes(each.id)
        )
        return fit or self._least_bad()

    def _least_bad(self) -> tuple[Replica, ...]:
        """A stuck replica is worse than one that fails, that is worse than one that has just refused a request."""
        badness = {each.id: (each.id in self._silent, self.circuits.badness(each.id)) for each in self._replicas}
        least = min(badness.values(), default=None)
        return tuple(each for each in self._replicas if badness[each.id] == least)

    def circuit_states(self) -> dict[str, int]:
        """How many replicas are in each state."""
        return self.circuits.counts([each.id for each in self._replicas])

    def replace(self, replicas: Iterable[Replica]) -> None:
        with self._lock:
            self._announced = tuple(sorted(replicas, key=lambda replica: replica.id))
            ids = {replica.id for replica in self._announced}
            self._suspended = {key: until for key, until in self._suspended.items() if key in ids}
            self._silent = self._silent & ids
            self.circuits.keep(ids)
            self._choose()

    def require(self, model: str) -> None:
        """Replicas of another model are as if they were not there: while an application is updated in place, Ray announces both."""
        with self._lock:
            self._model = model
            self._choose()

    def is_other(self, replica_id: str) -> bool:
        """It serves another model than the one that is required."""
        return any(each.id == replica_id and not self._serves(each) for each in self._announced)

    def _choose(self) -> None:
        self._replicas = tuple(filter(self._serves, self._announced))

    def _serves(self, replica: Replica) -> bool:
        return self._model is None or replica.model == self._model

    def discard(self, replica_id: str) -> None:
        self.replace([replica for replica in self._announced if replica.id != replica_id])

    def suspend(self, replica_id: str) -> None:
        """Passes over a replica that refused a request: the controller notices seconds later than a caller does."""
        with self._lock:
            self._suspended[replica_id] = self._clock() + SUSPENSION_S

    def is_silent(self, replica_id: str) -> bool:
        """It does not report, or reports that it takes nothing."""
        return replica_id in self._silent

    def silence(self, replica_id: str) -> None:
        """Passes over a replica that does not report, or reports that it takes nothing, until `resume`."""
        with self._lock:
            self._silent = self._silent | {replica_id}

    def resume(self, replica_id: str) -> None:
        """It reports that it takes requests. That does not end a suspension: a dead engine's replica may still report."""
        if replica_id in self._silent:
            with self._lock:
                self._silent = self._silent - {replica_id}


_directories: dict[str, ReplicaDirectory] = {}


def directory_of(deployment: str) -> ReplicaDirectory:
    """This process's directory of a deployment, by name."""
    return _directories.setdefault(deployment, ReplicaDirectory())
