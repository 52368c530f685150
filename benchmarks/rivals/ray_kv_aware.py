"""Ray Serve LLM with its `KVAwareRouter` and direct streaming, on the demo model: `python ray_kv_aware.py PORT MODEL_DIR KV_BYTES`.

It runs in the environment that `benchmarks/rivals/install ray_kv_aware` makes: `ray.serve.llm` is written for another vLLM than ours.
Prints "ready" once it answers.
"""

import os
import sys
import time
import urllib.request

SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
    "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY": "1",
    "RAY_AUTH_MODE": "disabled",
    "VLLM_NO_USAGE_STATS": "1",
    "DYN_LOG": "error",
}


def main(port: int, model: str, kv_bytes: int) -> None:
    os.environ.update(SETTINGS)
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.llm import LLMConfig, build_openai_app

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    config = LLMConfig(
        model_loading_config={"model_id": "mygo-demo", "model_source": model},
        deployment_config={
            "num_replicas": 2,
            "ray_actor_options": {"num_cpus": 1},
            "request_router_config": {"request_router_class": "ray.serve.llm.request_router.KVAwareRouter"},
        },
        engine_kwargs={
            "enforce_eager": True,
            "block_size": 32,
            "max_model_len": 4096,
            "max_num_seqs": 64,
            "kv_cache_memory_bytes": kv_bytes,
            "enable_prompt_tokens_details": True,
        },
        placement_group_config={"bundles": [{"CPU": 1}]},
    )
    serve.run(build_openai_app({"llm_configs": [config]}), blocking=False)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()  # a fixed scheme
            break
        except OSError:
            time.sleep(0.5)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
