"""Errors of the retrieval tier.

RetrievalError
├── UnknownStoreError     no collection of this id in this namespace
├── DocumentError         a document or collection cannot be taken; the message names the reason
├── QueryError            a search cannot be made; the message names the reason
└── StorageError          the document store did not answer, or holds what it cannot use
"""


class RetrievalError(Exception):
    """Base of everything this package raises on purpose."""


class UnknownStoreError(RetrievalError):
    """No collection of this id in this namespace."""


class DocumentError(RetrievalError):
    """A document or collection cannot be taken; the message names the reason."""


class QueryError(RetrievalError):
    """A search cannot be made; the message names the reason."""


class StorageError(RetrievalError):
    """The document store did not answer, or holds what it cannot use."""
