"""An engine without a model: for tests, and for fleets that do not fit a machine.

It is a discrete-time model of vLLM. It models

- continuous batching: waiting and running requests, chunked prefill, decode steps whose length grows with the batch,
  preemption when KV blocks run out (`scheduler.py`);
- the prefix cache: full blocks, chained by content and cache salt, LRU eviction (`blocks.py`), and the events that
  tell routers about it, in vLLM's wire form (`events.py`, `publisher.py`);
- the HTTP API, streams, usage with cached tokens, errors and aborts included (`app.py`, `protocol.py`, `encoding.py`).

It does not model a language: text becomes tokens by a fixed rule (`tokenizer.py`), and an answer is readable words
that depend on nothing but the prompt's tokens, `seed` and the choice's index (`text.py`). Temperature and other
sampling parameters, tools, structured output, `logprobs` and `echo` are accepted and change nothing. Nor does it model
time that is lost outside the model: attention that grows with the context, tokenization, CUDA graphs, other media.
"""

from deployments.engines.simulated.engine import SimulatedEngine

__all__ = ["SimulatedEngine"]
