"""Errors of the retrieval tier.

RetrievalError
├── UnknownError          nothing of this id in this namespace; `field` names the id
│   ├── UnknownStoreError     no collection
│   ├── UnknownFileError      no file, in this namespace or in this collection
│   ├── UnknownBatchError     no batch of files
│   └── UnknownUploadError    no upload: it was dropped, finished, or silent for too long
├── InputError            what was given cannot be taken; `field` names what is at fault, the message says why
│   ├── DocumentError     a document, file or collection
│   └── QueryError        a search
├── UnknownTicketError    a search that was begun is not known any more: begin it again
├── OversizeError         a file is longer than what is kept
├── BusyError             too much waits already; try again
├── ChunkSizeError        chunks are to be longer than what the encoder reads
├── ParseError            a file has no text that can be read; `code` is OpenAI's
├── SupersededError       what was being ingested is no longer wanted
├── IndexFileError        an index's files are missing, damaged, or of another collection or encoder
└── StorageError          the document store did not answer, or holds what it cannot use

Stopping                  no error: the process is to end, and what is under way in the background goes on in the next one
"""

from typing import ClassVar, Self


class RetrievalError(Exception):
    """Base of everything this package raises on purpose."""


class UnknownError(RetrievalError):
    """Nothing of this id in this namespace. `field` names the id; `id` is empty where only one was given."""

    field: ClassVar[str]

    def __init__(self, message: str = "", id: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.id = id

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:  # it travels between processes
        return type(self), (str(self), self.id)


class UnknownStoreError(UnknownError):
    """No collection of this id in this namespace."""

    field = "vector_store_id"


class UnknownFileError(UnknownError):
    """No file of this id, in this namespace or in this collection."""

    field = "file_id"


class UnknownBatchError(UnknownError):
    """No batch of files of this id in this collection."""

    field = "batch_id"


class UnknownUploadError(UnknownError):
    """No upload of this id: it was dropped, finished, or silent for too long."""

    field = "file"


class InputError(RetrievalError):
    """What was given cannot be taken. `field` names what is at fault; the message says why, never what was given."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:  # it travels between processes
        return type(self), (str(self), self.field)


class DocumentError(InputError):
    """A document, file or collection cannot be taken."""


class QueryError(InputError):
    """A search cannot be made."""


class UnknownTicketError(RetrievalError):
    """A search that was begun is not known, or no longer: it was ended, took too long, or the process is another one. Begin it again."""


class OversizeError(RetrievalError):
    """A file is longer than what is kept."""


class BusyError(RetrievalError):
    """Too much waits already; try again."""


class ChunkSizeError(RetrievalError):
    """Chunks are to be longer than what the encoder reads."""


class ParseError(RetrievalError):
    """A file has no text that can be read. `code` is OpenAI's; the message says why, never what the file holds."""

    def __init__(self, message: str, code: str = "invalid_file") -> None:
        """`code`: `invalid_file`, `unsupported_file` or `server_error`."""
        super().__init__(message)
        self.code = code


class SupersededError(RetrievalError):
    """What was being ingested is no longer wanted: its document was deleted, cancelled or given anew."""


class IndexFileError(RetrievalError):
    """An index's files cannot be used or written; the index can be made again from SQL."""


class StorageError(RetrievalError):
    """The document store did not answer, or holds what it cannot use."""


class Stopping(Exception):  # noqa: N818  # no error
    """The process is to end: what is under way in the background is given up, and goes on in the next one."""
