"""Errors of the retrieval tier.

RetrievalError
├── UnknownStoreError     no collection of this id in this namespace
├── InputError            what was given cannot be taken; `field` names what is at fault, the message says why
│   ├── DocumentError     a document or collection
│   └── QueryError        a search
├── ChunkSizeError        chunks are to be longer than what the encoder reads
├── ProfileError          a file of prefill times cannot be used
└── StorageError          the document store did not answer, or holds what it cannot use
"""

from typing import Self


class RetrievalError(Exception):
    """Base of everything this package raises on purpose."""


class UnknownStoreError(RetrievalError):
    """No collection of this id in this namespace."""


class InputError(RetrievalError):
    """What was given cannot be taken. `field` names what is at fault; the message says why, never what was given."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:  # it travels between processes
        return type(self), (str(self), self.field)


class DocumentError(InputError):
    """A document or collection cannot be taken."""


class QueryError(InputError):
    """A search cannot be made."""


class ChunkSizeError(RetrievalError):
    """Chunks are to be longer than what the encoder reads."""


class ProfileError(RetrievalError):
    """A file of prefill times cannot be used; the message says what it must look like."""


class StorageError(RetrievalError):
    """The document store did not answer, or holds what it cannot use."""
