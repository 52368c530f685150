"""From a configured source to a verifier. Nothing heavy is imported before it is chosen."""

from cache.bert.precision import Precision
from cache.verifiers.base import Verifier


def load_verifier(source: str, threads: int | None = None, encoder: str | None = None, precision: Precision = "float32") -> Verifier:
    """The verifier for `none`, `packaged`, a directory or a hub id. `encoder`, its name, and `precision` are for `packaged`.

    Raises `VerifierError`.
    """
    if source == "none":
        from cache.verifiers.similarity import SimilarityVerifier

        return SimilarityVerifier()
    if source == "packaged":
        from cache.verifiers.packaged import PackagedVerifier

        return PackagedVerifier(threads=threads, encoder=encoder, precision=precision)
    from cache.verifiers.cross_encoder import CrossEncoderVerifier

    return CrossEncoderVerifier(source, threads)
