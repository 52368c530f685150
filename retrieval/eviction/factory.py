"""Policies by name."""

from typing import Any, Literal

from retrieval.eviction.arc import Arc
from retrieval.eviction.base import EvictionPolicy
from retrieval.eviction.lfu import Lfu
from retrieval.eviction.lru import Lru
from retrieval.eviction.pgdsf import Pgdsf

PolicyName = Literal["lru", "lfu", "arc", "pgdsf"]
POLICIES: dict[PolicyName, type[EvictionPolicy[Any]]] = {"lru": Lru, "lfu": Lfu, "arc": Arc, "pgdsf": Pgdsf}
