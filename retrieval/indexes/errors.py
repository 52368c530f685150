"""IndexFileError, a `RetrievalError`: an index's files are missing, damaged, or of another collection or encoder."""

from retrieval.errors import RetrievalError


class IndexFileError(RetrievalError):
    """An index's files cannot be used or written; the index can be made again from SQL."""
