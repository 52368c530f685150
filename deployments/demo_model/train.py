"""Trains the demo model from `data/` alone: `python -m deployments.demo_model.train [--out DIR] [--epochs N] [--seed S]`.

Tokenizer, model and data order follow from the seed. One CPU core is enough, and more are not used, so that sums keep their order.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from deployments.demo_model import MODEL_DIR
from deployments.demo_model.data import OffTopic, load_facts
from deployments.demo_model.samples import HINTS, SYSTEM_PROMPTS, Sample, Sampler
from deployments.demo_model.tokenizer import ASSISTANT, END, MAX_LENGTH, render, train_tokenizer

VOCAB_SIZE = 3072
BATCH_TOKENS = 2048
LEARNING_RATE, WARMUP_SHARE, FINAL_SHARE, WEIGHT_DECAY = 1.5e-3, 0.04, 0.02, 0.1
OFF_TOPIC_SHARE = 0.6
# The first epochs show bare questions, which are short and so cheap, until most answers are known.
BARE_SHARE = 0.3
# Answer tokens in a common batch. Losses are summed and divided by this, so that a token counts the same in a batch of few long texts.
LOSS_SCALE = 700.0


@dataclass(frozen=True)
class Encoded:
    ids: list[int]
    positions: list[int]
    learnt: list[bool]
    """Whether the model is to produce this token: those of the answers and the end that follows them."""


def encode(sample: Sample, tokenizer: Any) -> Encoded:
    ids: list[int] = tokenizer.encode(render(sample.messages), add_special_tokens=False)
    assistant, end = tokenizer.convert_tokens_to_ids([ASSISTANT, END])
    learnt, answering = [], False
    for index, token in enumerate(ids):
        # The token after the role is its newline, which belongs to the prompt.
        learnt.append(answering and ids[index - 1] != assistant)
        answering = token == assistant or (answering and token != end)
    return Encoded(ids, [index + (sample.gap if 3 * index >= len(ids) else 0) for index in range(len(ids))], learnt)


def batches(samples: list[Encoded], rng: random.Random) -> list[list[Encoded]]:
    """Groups of samples of about one length and of at most BATCH_TOKENS with padding, in random order."""
    groups: list[list[Encoded]] = [[]]
    for sample in sorted(samples, key=lambda sample: len(sample.ids)):
        if groups[-1] and len(sample.ids) * (len(groups[-1]) + 1) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(sample)
    rng.shuffle(groups)
    return groups


def tensors(batch: list[Encoded], pad: int) -> tuple[Any, Any, Any]:
    """Ids, positions and learnt flags, each (samples, longest sample), padded at the end where causal attention cannot see it."""
    width = max(len(sample.ids) for sample in batch)
    ids = torch.tensor([sample.ids + [pad] * (width - len(sample.ids)) for sample in batch])
    positions = torch.tensor([sample.positions + [0] * (width - len(sample.ids)) for sample in batch])
    learnt = torch.tensor([sample.learnt + [False] * (width - len(sample.ids)) for sample in batch])
    return ids, positions, learnt


def loss_sum(model: Any, batch: list[Encoded], pad: int) -> tuple[Any, int]:
    """Summed loss of the learnt tokens, and their number. Only they go through the output layer."""
    ids, positions, learnt = tensors(batch, pad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1][learnt[:, 1:]])
    targets = ids[:, 1:][learnt[:, 1:]]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


def new_model(tokenizer: Any) -> Any:
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def learning_rate(done: float) -> float:
    """Linear warmup, then a cosine; `done` is the share of the training that is over."""
    if done < WARMUP_SHARE:
        return LEARNING_RATE * done / WARMUP_SHARE
    rest = (done - WARMUP_SHARE) / (1 - WARMUP_SHARE)
    return LEARNING_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * rest)))


def optimizer_for(model: Any) -> Any:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    rest = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95))


def train(model: Any, tokenizer: Any, sampler: Sampler, epochs: int, rng: random.Random) -> None:
    optimizer = optimizer_for(model)
    started, seen = time.monotonic(), 0
    model.train()
    for epoch in range(epochs):
        encoded = [encode(sample, tokenizer) for sample in sampler.epoch(OFF_TOPIC_SHARE, context=epoch >= epochs * BARE_SHARE)]
        total, count, groups = 0.0, 0, batches(encoded, rng)
        for index, batch in enumerate(groups):
            rate = learning_rate((epoch + index / len(groups)) / epochs)
            loss, targets = loss_sum(model, batch, tokenizer.pad_token_id)
            step(model, optimizer, loss / LOSS_SCALE, rate)
            total, count, seen = total + loss.item(), count + targets, seen + sum(len(sample.ids) for sample in batch)
        seconds = time.monotonic() - started
        say(f"epoch {epoch + 1}/{epochs}  loss {total / count:.4f}  batches {len(groups)}  {seen / seconds:.0f} tokens/s  {seconds:.0f} s")


def step(model: Any, optimizer: Any, loss: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def save(model: Any, tokenizer: Any, out: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    # Servers take these as defaults for clients that give none. At temperature 1 so small a model would stray.
    GenerationConfig(
        do_sample=True, temperature=0.1, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)  # the weights are written for their owner alone, and a server may run as another user


def corpus() -> Iterator[str]:
    """The text from which the tokenizer learns; answers count most, because they have to be written."""
    for fact in load_facts():
        yield from [fact.answer] * 3
        yield from (text for question in fact.questions for text in (question, question.lower()))
    yield from (*SYSTEM_PROMPTS, *HINTS)
    yield from OffTopic().texts()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_DIR)
    parser.add_argument("--epochs", type=int, default=22)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = train_tokenizer(corpus(), VOCAB_SIZE)
    model = new_model(tokenizer)
    facts = load_facts()
    say(f"{len(facts)} facts, {len(tokenizer)} tokens, {sum(parameter.numel() for parameter in model.parameters())} parameters")
    train(model, tokenizer, Sampler(facts, OffTopic(), rng), args.epochs, rng)
    save(model, tokenizer, args.out)
    say(f"written to {args.out}")


if __name__ == "__main__":
    main()
