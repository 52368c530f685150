"""Imports point downwards only (ARCHITECTURE.md, the house)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"cache", "retrieval", "deployments", "serve_app", "benchmarks", "tests"}
MAY_IMPORT = {
    "cache": {"cache"},
    "retrieval": {"cache", "retrieval"},
    "deployments": {"cache", "retrieval", "deployments"},
    "serve_app": {"cache", "retrieval", "deployments", "serve_app"},
}
FORBIDDEN = {
    "cache": {"ray", "vllm", "aiohttp", "httpx", "starlette", "fastapi", "uvicorn"},
    "retrieval": {"ray", "vllm", "aiohttp", "httpx", "starlette", "fastapi", "uvicorn"},
    "deployments": set(),
    "serve_app": {"vllm", "torch", "transformers", "sentence_transformers"},
}
ALLOWED = {"retrieval/eviction/vllm_policy.py": {"vllm"}}
"""The adapter, which only vLLM imports."""


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at any depth of the code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module).split(".")[0])
    return names


def test_the_adapters_are_imported_by_none_of_us() -> None:
    names = [path.removesuffix(".py").replace("/", ".") for path in ALLOWED]
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            assert not any(f"import {name}" in path.read_text() or f"from {name}" in path.read_text() for name in names), path


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_package_imports_only_what_lies_below(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        names = imported(path)
        above = (names & OURS) - MAY_IMPORT[package]
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}, which lies above {package}/"
        forbidden = names & FORBIDDEN[package] - ALLOWED.get(str(path.relative_to(ROOT)), set())
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}, which {package}/ must not know"
