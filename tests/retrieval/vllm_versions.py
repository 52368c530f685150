"""vLLM's offload policies and their manager, of the installed version and of others, without the rest of vLLM."""

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "vllm_sources.py"
INSTALLED = "installed"
_PACKAGES = (
    "distributed",
    "distributed.kv_transfer",
    "distributed.kv_transfer.kv_connector",
    "distributed.kv_transfer.kv_connector.v1",
    "distributed.kv_transfer.kv_connector.v1.offloading",
    "utils",
    "v1",
    "v1.metrics",
)
"""Packages whose own code, or that of their neighbours, would bring in all of vLLM."""
_ADAPTER = "retrieval.eviction.vllm_policy"


@dataclass(frozen=True)
class Vllm:
    base: Any
    policies: Any
    manager: Any
    factory: Any
    adapter: Any


def sources(version: str) -> Path:
    """The folder that has `vllm` in it. Skips the test where there is none."""
    if version == INSTALLED:
        spec = importlib.util.find_spec("vllm")
        if spec is None or not spec.submodule_search_locations:
            pytest.skip("vLLM is not installed")
        return Path(spec.submodule_search_locations[0]).parent
    folder = ROOT / "var" / "vllm" / version
    if folder.is_dir():
        return folder
    if not os.environ.get("CI"):
        pytest.skip(f"vLLM {version}'s files are not here: python scripts/vllm_sources.py {version}")
    fetched = subprocess.run([sys.executable, SCRIPT, version], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"vLLM {version}'s files cannot be had: {fetched.stderr.strip()}")
    return folder


@contextmanager
def loaded(folder: Path) -> Iterator[Vllm]:
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "vllm" or name == _ADAPTER}
    for name in kept:
        del sys.modules[name]
    try:
        _stubs(folder / "vllm")
        yield Vllm(
            base=importlib.import_module("vllm.v1.kv_offload.base"),
            policies=importlib.import_module("vllm.v1.kv_offload.cpu.policies.base"),
            manager=importlib.import_module("vllm.v1.kv_offload.cpu.manager"),
            factory=importlib.import_module("vllm.v1.kv_offload.cpu.policies.factory"),
            adapter=importlib.import_module(_ADAPTER),
        )
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "vllm" or name == _ADAPTER]:
            del sys.modules[name]
        sys.modules.update(kept)


def _stubs(folder: Path) -> None:
    _module("vllm", folder)
    for name in _PACKAGES:
        _module(f"vllm.{name}", folder / name.replace(".", "/"))
    logger: Any = logging.getLogger("vllm")
    logger.warning_once, logger.info_once = logger.warning, logger.info
    _module("vllm.logger").init_logger = lambda name: logger
    _module("vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics").OffloadingConnectorStats = object


def _module(name: str, folder: Path | None = None) -> Any:
    module = ModuleType(name)
    if folder is not None:
        module.__path__ = [str(folder)]
    sys.modules[name] = module
    return module
