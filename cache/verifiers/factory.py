"""From a configured source to a verifier. Nothing heavy is imported before it is chosen."""

from cache.verifiers.base import Verifier


def load_verifier(source: str, threads: int | None = None, encoder: str | None = None) -> Verifier:
    """The verifier for `none`, `packaged`, a directory or a hub id. `encoder`: its name, for `packaged`. Raises `VerifierError`."""
    if source == "none":
        from cache.verifiers.similarity import SimilarityVerifier

        return SimilarityVerifier()
    if source == "packaged":
        from cache.verifiers.packaged import PackagedVerifier

        return PackagedVerifier(threads=threads, encoder=encoder)
    from cache.verifiers.cross_encoder import CrossEncoderVerifier

    return CrossEncoderVerifier(source, threads)
