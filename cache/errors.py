"""Errors of the cache tier.

CacheError
├── StoreError          the SQL store did not answer, or refused
├── VectorIndexError    the vector index did not answer, or refused
├── EmbedderError       a text could not be embedded
├── VerifierError       a pair could not be judged
└── KeyFormatError      a value has no canonical form (NaN, an unsupported type)

Every one of them means a miss to a request; none reaches a client.
"""


class CacheError(Exception):
    """Base of everything this package raises on purpose."""


class StoreError(CacheError):
    """The SQL store did not answer, or refused."""


class VectorIndexError(CacheError):
    """The vector index did not answer, or refused."""


class EmbedderError(CacheError):
    """A text could not be embedded."""


class VerifierError(CacheError):
    """A pair could not be judged."""


class KeyFormatError(CacheError):
    """A value has no canonical form (NaN, an unsupported type)."""
