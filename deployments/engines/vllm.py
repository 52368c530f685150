"""vLLM's `AsyncLLM` in the replica's process, behind vLLM's own OpenAI application (module paths of vLLM 0.32)."""

import asyncio
import contextlib
import difflib
import json
import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.config import ModelConfig, VllmEngineConfig
from deployments.demo_model import MODEL_DIR
from deployments.engines.base import ASGIApp, KvEventSource, Load
from deployments.engines.guardian import start_guardian
from deployments.engines.vllm_rendering import rendered
from deployments.errors import EngineDeadError, EngineStartError
from retrieval.prompt import unknown_control

_ENVIRONMENT = {
    # Otherwise vLLM's process titles overwrite the mark that the guardian looks for.
    "SPT_NOENV": "1",
    # vLLM's own usage reports would leave the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A host that media may be fetched from must not send the engine on to another one.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
}
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Of LoRA adapters, for which vLLM can make room."""
_USUAL_RANK = 64
_AT_ONCE = 4
"""Adapters that one step computes for, at most: each takes memory."""


class VllmEngine:
    """See `Engine`. `host` is the address that KV events are published on."""

    def __init__(self, config: VllmEngineConfig, model: ModelConfig, host: str) -> None:
        self._config = config
        self._model = model
        self._host = host
        self._llm: Any = None
        self._app: Any = None
        self._lifespan = contextlib.AsyncExitStack()
        self._stats: dict[int, Any] = {}

    @property
    def app(self) -> ASGIApp:
        app: ASGIApp = self._app
        return app

    reuses_tokens = True

    @property
    def block_size(self) -> int:
        return int(self._llm.vllm_config.cache_config.block_size)

    @property
    def kv_blocks(self) -> int:
        return int(self._llm.vllm_config.cache_config.num_gpu_blocks or 0)

    @property
    def max_model_len(self) -> int:
        return int(self._llm.model_config.max_model_len)

    @property
    def max_running(self) -> int:
        return int(self._llm.vllm_config.scheduler_config.max_num_seqs)

    @property
    def control_tokens(self) -> Sequence[str]:
        tokenizer = self._llm.renderer.tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", None) or {}
        return unknown_control([*tokenizer.all_special_tokens, *(token.content for token in added.values() if token.special)])

    async def start(self) -> None:
        # vLLM publishes KV events on an OS-chosen port of this address, if it is asked for "*:0".
        os.environ.update(_ENVIRONMENT | {"VLLM_HOST_IP": self._host} | self._config.env)
        start_guardian()
        try:
            args = self._arguments()
            self._llm = self._start_llm(args)
            await self._build_app(args)
        except EngineStartError:
            raise
        except Exception as error:
            raise EngineStartError(
                f"vLLM could not start with model.source={self._model.source!r}: {error}. The replica's log has the engine's own messages."
            ) from error

    def _arguments(self) -> Namespace:
        from vllm.config import KVEventsConfig, StructuredOutputsConfig
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
        given = self._config.args.given()
        _check_names(given, set(vars(args)))
        if isinstance(given.get("structured_outputs_config"), dict):  # vLLM makes objects of other arguments' dicts, not of this one's
            given["structured_outputs_config"] = StructuredOutputsConfig(**given["structured_outputs_config"])
        endpoint = "tcp://*:0"
        defaults = {
            "model": str(MODEL_DIR) if self._model.source == "demo" else self._model.source,
            "served_model_name": [self._model.name],
            "enable_prefix_caching": True,
            # Unset, vLLM fetches media from wherever a request says. No host can have this name.
            "allowed_media_domains": ["(none)"],
            "enable_prompt_tokens_details": True,
            "scheduling_policy": "priority",  # of clients' requests all are equal; head starts come after them
            "kv_events_config": KVEventsConfig(True, "zmq", endpoint=endpoint, replay_endpoint=endpoint),
        }
        vars(args).update(defaults | _adapters(self._model) | _one_process_on_cpu(given) | given)
        return args

    def _start_llm(self, args: Namespace) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(args), stat_loggers=self._stat_loggers())

    def _stat_loggers(self) -> list[Any]:
        from vllm.v1.metrics.loggers import StatLoggerBase
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        latest = self._stats

        class LatestStats(StatLoggerBase):  # type: ignore[misc]  # vLLM is not typed here
            """Keeps what the scheduler reported last, for `load`."""

            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

            def record(self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
                if scheduler_stats is not None:
                    latest[engine_idx] = scheduler_stats

            def log_engine_initialized(self) -> None: ...

        return [LatestStats, RayPrometheusStatLogger]

    async def _build_app(self, args: Namespace) -> None:
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        tasks = await self._llm.get_supported_tasks()
        self._app = build_app(args, tasks, self._llm.model_config)
        await init_app_state(self._llm, self._app.state, args, tasks)
        await self._lifespan.enter_async_context(self._app.router.lifespan_context(self._app))

    async def stop(self) -> None:
        await self._lifespan.aclose()
        if self._llm is not None:
            llm, self._llm = self._llm, None
            await asyncio.to_thread(llm.shutdown)

    def load(self) -> Load:
        """The scheduler's own count, as of its latest step."""
        stats = self._stats.values()
        return Load(
            running=sum(each.num_running_reqs for each in stats),
            waiting=sum(each.num_waiting_reqs + each.num_skipped_waiting_reqs for each in stats),
            kv_usage=max((each.kv_cache_usage for each in stats), default=0.0),
        )

    def kv_event_sources(self) -> tuple[KvEventSource, ...]:
        sources = self._llm.get_kv_event_sources()
        return tuple(KvEventSource(source.endpoint, source.replay_endpoint, source.topic, rank) for rank, source in sorted(sources.items()))

    async def render(self, path: str, body: bytes) -> Sequence[int] | None:
        try:
            inputs = await rendered(self._app.state, path, body)
        except Exception:  # of many types: whatever is wrong with the request, its own answer says it
            return None
        if not isinstance(inputs, list) or len(inputs) != 1:
            return None
        tokens: Sequence[int] | None = inputs[0].get("prompt_token_ids")
        return tokens

    async def encode(self, texts: Sequence[str]) -> list[Sequence[int]] | None:
        tokenizer = self._llm.renderer.tokenizer

        def tokens() -> list[Sequence[int]]:
            return [tokenizer.encode(text, add_special_tokens=False) for text in texts]

        try:
            return await asyncio.to_thread(tokens)
        except Exception:  # tokenizers of many kinds, some of which do not take this
            return None

    async def reset_prefix_cache(self) -> bool:
        return bool(await self._llm.reset_prefix_cache(reset_connector=True))

    async def check_health(self) -> None:
        if self._llm is None or self._llm.errored:
            raise EngineDeadError("vLLM's engine has stopped; Serve will replace this replica")


def _adapters(model: ModelConfig) -> dict[str, Any]:
    """vLLM's arguments for LoRA adapters; none where there are none, because they cost memory and compilation."""
    if not model.adapters:
        return {}
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    modules = [LoRAModulePath(name, source) for name, source in model.adapters.items()]
    rank = max(_rank(source) for source in model.adapters.values())
    room = next((size for size in _RANKS if size >= rank), _RANKS[-1])  # a higher rank is vLLM's to refuse
    return {"enable_lora": True, "lora_modules": modules, "max_loras": min(len(modules), _AT_ONCE), "max_lora_rank": room}


def _rank(source: str) -> int:
    """Of an adapter in a directory; of one on a hub, the usual most."""
    config = Path(source).expanduser() / "adapter_config.json"
    return int(json.loads(config.read_text())["r"]) if config.is_file() else _USUAL_RANK


def _check_names(given: dict[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise EngineStartError(f"llm.engine.args: vLLM has no argument {name!r}{hint}")


def _one_process_on_cpu(given: dict[str, Any]) -> dict[str, Any]:
    """On a CPU without tensor parallelism the worker can live in the engine core's process.

    That saves one Python process with all of vLLM's imports, in start-up time and in memory. vLLM refuses the short
    name `uni` there because it sets the worker's OpenMP environment when it spawns it; the replica sets it instead.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or given.get("tensor_parallel_size", 1) > 1:
        return {}
    return {"distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor"}
