"""LoRA adapters as models, on the simulated engine and on real vLLM."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from deployments.demo_model import MODEL_DIR
from tests.conftest import CONFIGS
from tests.e2e.system import ROOT, System, report
from tests.e2e.test_routing import long_text

NAMES = ("loud", "quiet")
RANK = 4


def make_adapter(directory: Path, seed: int) -> str:
    """One that moves what the demo model attends to, so far that it says something else."""
    sizes = json.loads((MODEL_DIR / "config.json").read_text())
    rng = np.random.default_rng(seed)
    weights = {}
    for layer in range(sizes["num_hidden_layers"]):
        place = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
        weights[f"{place}.lora_A.weight"] = rng.normal(size=(RANK, sizes["hidden_size"])).astype(np.float32)
        weights[f"{place}.lora_B.weight"] = rng.normal(size=(sizes["num_key_value_heads"] * sizes["head_dim"], RANK)).astype(np.float32)
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "target_modules": ["v_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "demo"}))
    return str(directory)


@pytest.fixture(scope="module", params=list(CONFIGS))
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("adapters")
    content = yaml.safe_load((ROOT / CONFIGS[request.param]).read_text())
    llm = content["applications"][0]["args"]["llm"]
    model = llm["model"]
    if request.param == "vllm":  # others of its kind may be running for other tests: one replica is half as much memory
        llm["replicas"] = {"min": 1, "max": 1}
    model["adapters"] = {name: make_adapter(directory / name, seed) for seed, name in enumerate(NAMES)}
    model["aliases"] = ["gpt-4o-mini"]
    (directory / "adapters.yaml").write_text(yaml.safe_dump(content))
    report(f"starting scripts/serve with {CONFIGS[request.param]} and adapters")
    system = System(directory / "adapters.yaml", directory)
    try:
        system.wait_ready()
        yield system
    finally:
        system.stop()


def ask(system: System, model: str, **fields: Any) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": "What is prefix caching?"}], "max_tokens": 16, "temperature": 0}
    answer = system.http.post("/v1/chat/completions", json={**asked, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def test_each_adapter_is_a_model_with_answers_of_its_own(system: System) -> None:
    models = (system.model, *NAMES)
    listed = {model["id"] for model in system.http.get("/v1/models").json()["data"]}
    assert listed > {*models, "gpt-4o-mini"}
    first = {model: ask(system, model) for model in models}
    again = {model: ask(system, model) for model in models}
    assert {answer.headers["x-mygo-cache"] for answer in first.values()} == {"miss"}
    assert {answer.headers["x-mygo-cache"] for answer in again.values()} == {"exact"}
    assert [answer.json()["model"] for answer in again.values()] == list(models)
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in first.values()}
    assert len(texts) == 3
    aliased = ask(system, "gpt-4o-mini")
    assert (aliased.headers["x-mygo-cache"], aliased.json()["model"]) == ("exact", system.model)


def test_each_adapter_has_kv_of_its_own_and_requests_go_where_it_is(system: System) -> None:
    text = long_text(1500)
    for model in (system.model, *NAMES):
        for number in range(3):
            messages = [{"role": "system", "content": text}, {"role": "user", "content": f"{number}: {secrets.token_hex(4)}?"}]
            answer = ask(system, model, messages=messages, max_tokens=4, cache={"mode": "off"})
            found = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            if system.is_simulated:  # with one replica there is nothing to predict
                assert int(answer.headers["x-mygo-predicted-cached-tokens"]) == found
            assert (found > 0) is (number > 0), model


def test_other_routes_know_them(system: System) -> None:
    for path, body in (
        ("/v1/responses", {"input": "What is a cache?", "max_output_tokens": 8}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "What is a cache?"}], "max_tokens": 8}),
    ):
        answers = [system.http.post(path, json={"model": model, **body}) for model in (system.model, "loud")]
        assert [answer.json()["model"] for answer in answers] == [system.model, "loud"]
        assert [answer.headers["x-mygo-cache"] for answer in answers] == ["miss", "miss"]
    assert (
        system.http.post("/v1/chat/completions", json={"model": "low", "messages": [{"role": "user", "content": "?"}]}).status_code == 404
    )
