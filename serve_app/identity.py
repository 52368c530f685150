"""Which model is served, beyond its name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.keys import fingerprint
from deployments.config import LlmConfig, VllmEngineConfig
from deployments.demo_model import MODEL_DIR

_CHANGE_ANSWERS = {
    "revision",
    "dtype",
    "quantization",
    "max_model_len",
    "chat_template",
    "enable_auto_tool_choice",
    "tool_call_parser",
    "reasoning_parser",
    "extra",
}
"""Engine arguments that change what a model answers; the others change only how fast."""


def model_identity(config: LlmConfig) -> str:
    """Equal only for configurations whose answers may stand for one another.

    A model in a directory is known by its files' names, sizes and times, so that large ones need not be read; a hub id
    by its revision, which only a configuration that names one pins.
    """
    engine = config.engine
    args = engine.args.model_dump(mode="json", include=_CHANGE_ANSWERS) | engine.env if isinstance(engine, VllmEngineConfig) else {}
    source, adapters = config.model.source, config.model.adapters
    return fingerprint({"engine": engine.type, "args": args, "source": source, "files": _files(source), **_adapters(adapters)})


def _adapters(adapters: Mapping[str, str]) -> dict[str, Any]:
    return {"adapters": {name: [source, _files(source)] for name, source in adapters.items()}} if adapters else {}


def _files(source: str) -> str:
    if source == "demo":  # small, and every clone gives its files other times
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(MODEL_DIR.iterdir()))).hexdigest()
    directory = Path(source).expanduser()
    if not directory.is_dir():
        return ""
    states = [(str(path.relative_to(directory)), path.stat()) for path in sorted(directory.rglob("*")) if path.is_file()]
    return fingerprint([[name, state.st_size, state.st_mtime_ns] for name, state in states])
