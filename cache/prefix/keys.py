"""Keys of KV blocks: a rolling hash over everything that a block's content depends on.

Engines name their blocks by hashes of their own, which differ by version, algorithm and seed. Those are used as opaque
names only (`mirror.py`); whoever has tokens computes these keys instead.

    key[i] = key[i-1] * RATIO + mix(sum(token[k] * multiplier[k]))     (mod 2**60)

The sum is a multilinear hash (Carter and Wegman) with secret multipliers, `mix` is splitmix64's finalizer, and the chain is a
polynomial, so that all keys of a prompt come from one cumulative sum. 60 bits make the keys the smallest Python integers that still
do not collide: among 10 million blocks with a probability of 1 in 20,000, and a collision only misroutes a request.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Tokens = NDArray[np.uint32]

_BITS = 60
MASK = (1 << _BITS) - 1
_MASK64 = (1 << 64) - 1
_MASK_ARRAY = np.uint64(MASK)
_FEW = 2
"""Up to this many blocks plain integers are faster than arrays."""


class BlockKeys:
    """Computes keys. Equal seeds give equal keys, in every process."""

    def __init__(self, seed: bytes, block_size: int) -> None:
        """`block_size`: tokens in one KV block. `seed`: secret, so that nobody can construct collisions."""
        if block_size < 1:
            raise ValueError("block_size must be positive")
        self.block_size = block_size
        self._seed = seed
        stream = hashlib.shake_256(b"block keys" + seed).digest(8 * (block_size + 1))
        numbers = [int.from_bytes(stream[at : at + 8], "little") | 1 for at in range(0, len(stream), 8)]
        self._ratio, self._multipliers = numbers[0], numbers[1:]
        self._inverse = pow(self._ratio, -1, 1 << 64)
        self._columns = np.array(self._multipliers, np.uint64)
        self._powers = self._inverse_powers = np.empty(0, np.uint64)

    def root(self, salt: str | None = None, adapter: str | None = None) -> int:
        """The key that a chain's first block is computed from. One deployment has one model, so that is not part of it."""
        return self.digest((salt or "", adapter or ""))

    def digest(self, value: Any) -> int:
        """A number for anything with a faithful `repr`."""
        return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8, key=self._seed[:64]).digest(), "little") & MASK

    def chain(self, parent: int, tokens: Sequence[int] | Tokens) -> list[int]:
        """Keys of the full blocks of `tokens`, which follow the block `parent` or a root. A rest shorter than a block has no key."""
        blocks = len(tokens) // self.block_size
        if blocks <= _FEW:
            few = tokens[: blocks * self.block_size]
            return self._chain_few(parent, few.tolist() if isinstance(few, np.ndarray) else list(few))
        return self._chain_many(parent, np.asarray(tokens[: blocks * self.block_size], np.uint32)).tolist()  # type: ignore[no-any-return]

    def _chain_few(self, parent: int, tokens: list[int]) -> list[int]:
        keys = []
        for start in range(0, len(tokens), self.block_size):
            parent = self.next(parent, sum(map(mul, tokens[start : start + self.block_size], self._multipliers)))
            keys.append(parent)
        return keys

    def next(self, parent: int, content: int) -> int:
        """The key behind `parent` of a block with this content."""
        return (parent * self._ratio + _mix(content)) & MASK

    def _chain_many(self, parent: int, tokens: Tokens) -> Keys:
        content = tokens.reshape(-1, self.block_size).astype(np.uint64) @ self._columns
        content ^= content >> np.uint64(30)
        content *= np.uint64(0xBF58476D1CE4E5B9)
        content ^= content >> np.uint64(27)
        content *= np.uint64(0x94D049BB133111EB)
        content ^= content >> np.uint64(31)
        count = len(content)
        self._reserve(count)
        # key[i] = ratio**(i+1) * (parent + sum over j <= i of content[j] * ratio**-(j+1))
        content *= self._inverse_powers[:count]
        content[0] = (int(content[0]) + parent) & _MASK64
        np.cumsum(content, out=content)
        content *= self._powers[:count]
        content &= _MASK_ARRAY
        return content

    def _reserve(self, count: int) -> None:
        if count <= len(self._powers):
            return
        size = max(1024, 2 * count)
        self._powers = np.cumprod(np.full(size, self._ratio, np.uint64), dtype=np.uint64)
        self._inverse_powers = np.cumprod(np.full(size, self._inverse, np.uint64), dtype=np.uint64)


def common(one: Tokens, other: Tokens) -> int:
    """Tokens with which both begin."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


def begins(chain: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one chain of keys is the beginning of another, or all of it: a key is of all that comes before it, too."""
    return len(chain) <= len(other) and chain[-1:] == other[len(chain) - 1 : len(chain)]


class KeyCounts:
    """The keys of several chains, all of which begin at roots. What they have in common counts once."""

    def __init__(self) -> None:
        self._chains: Counter[int] = Counter()
        """How many chains have a key."""

    def __len__(self) -> int:
        return len(self._chains)

    def add(self, chain: Sequence[int]) -> None:
        self._chains.update(chain)

    def remove(self, chain: Sequence[int]) -> None:
        """One that was added."""
        chains = self._chains
        for key in chain:
            if chains[key] > 1:
                chains[key] -= 1
            else:
                del chains[key]

    def new(self, chain: Sequence[int]) -> int:
        """How many keys of a chain are in none of these. Before one that is in one of them are none but such."""
        return len(chain) - bisect_left(chain, True, key=lambda key: key not in self._chains)


def _mix(value: int) -> int:
    """splitmix64's finalizer (Steele, Lea and Flood 2014)."""
    value &= _MASK64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK64
    return value ^ (value >> 31)
