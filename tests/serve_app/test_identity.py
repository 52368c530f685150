"""Models that are served under one name are told apart where their answers may differ, and only there."""

import os
from pathlib import Path
from typing import Any

import pytest

from deployments.config import LlmConfig
from serve_app.identity import model_identity


def identity(source: str = "org/model", **engine: Any) -> str:
    return model_identity(LlmConfig.model_validate({"model": {"name": "m", "source": source}, "engine": {"type": "vllm", **engine}}))


@pytest.mark.parametrize("args", [{"revision": "abc"}, {"quantization": "fp8"}, {"dtype": "float32"}, {"extra": {"seed": 7}}])
def test_what_changes_answers_changes_the_identity(args: dict[str, Any]) -> None:
    assert identity(args=args) != identity()


@pytest.mark.parametrize("args", [{"max_num_seqs": 3}, {"gpu_memory_utilization": 0.3}, {"tensor_parallel_size": 2}])
def test_what_changes_only_the_speed_does_not(args: dict[str, Any]) -> None:
    assert identity(args=args) == identity()


def test_sources_and_engines_differ(tmp_path: Path) -> None:
    simulated = model_identity(LlmConfig.model_validate({"engine": {"type": "simulated"}}))
    assert len({identity(), identity("demo"), identity("org/other"), identity(str(tmp_path)), simulated}) == 5


def test_a_directory_whose_files_change_is_another_model(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = identity(str(tmp_path))
    assert identity(str(tmp_path)) == first
    weights.write_bytes(b"two")
    os.utime(weights, (1, 1))
    assert identity(str(tmp_path)) != first
