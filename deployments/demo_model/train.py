"""Trains the demo model from `data/` and the project's own texts: `python -m deployments.demo_model.train [--out DIR]`.

Tokenizer, model and data order follow from the seed; the order of sums, and so the weights' last digits, from the number of threads.
"""

import argparse
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from deployments.demo_model import MODEL_DIR
from deployments.demo_model.chapters import Chapters
from deployments.demo_model.data import OffTopic, load_facts
from deployments.demo_model.guidance import Guidance
from deployments.demo_model.lessons import Encoder, TokenTree
from deployments.demo_model.packing import Row, batch, rows
from deployments.demo_model.passages import Librarian, Size
from deployments.demo_model.reading import Reading, tree
from deployments.demo_model.samples import HINTS, SYSTEM_PROMPTS, Sampler
from deployments.demo_model.scrambled import Scrambled, made_words, words
from deployments.demo_model.tokenizer import MAX_LENGTH, train_tokenizer

VOCAB_SIZE = 3072
THETA = 1e8
"""The rotary base. So half of each head's dimensions hardly turn within a prompt, and can compare tokens at any distance."""
WARMUP_STEPS, WEIGHT_DECAY = 80, 0.1
KNOWN_ROWS, KNOWN_LENGTH = 7, 384
OFF_TOPIC_SHARE = 0.6
MAX_ASKS = 8
MADE_WORDS = 3000
REPORT_STEPS = 20


@dataclass(frozen=True)
class Stage:
    """A part of the training: `steps` with a learning rate that falls from `rate` to `final_rate` along a cosine."""

    steps: int
    rate: float
    final_rate: float
    turns: str
    """What the steps show in turn: r, documents to read; k, what is to be known."""
    rows: int
    length: int
    """Of a step that shows documents: rows, and tokens of each at most."""
    pages: tuple[int, ...]
    sentences: tuple[int, ...]
    scrambled: float
    """Of readings, the share of random words."""
    chapters: float
    """The share of pieces of Markdown."""
    context: bool
    """Whether other things may stand before a question that is to be known."""
    rank_share: float
    """See `Size`. Were it less than 1 from the start, the model would learn to cite the first by rank, and not to read."""
    guidance: float
    """The weight of the losses of guided heads and readouts."""


STAGES = (
    Stage(300, 1.5e-3, 1.5e-3, "r", 8, 256, (2, 3), (1, 2), scrambled=0.7, chapters=0.0, context=False, rank_share=1.0, guidance=1.0),
    Stage(1200, 1.5e-3, 1.2e-3, "rrk", 7, 320, (2, 3), (1, 2), scrambled=0.3, chapters=0.05, context=False, rank_share=1.0, guidance=0.5),
    Stage(
        3000,
        1.2e-3,
        7e-4,
        "rk",
        6,
        448,
        (1, 2, 3, 4, 5),
        (1, 2, 3),
        scrambled=0.1,
        chapters=0.1,
        context=True,
        rank_share=0.6,
        guidance=0.3,
    ),
    Stage(
        3900,
        7e-4,
        1e-5,
        "rk",
        2,
        1536,
        (1, 2, 3, 5),
        (1, 3, 6, 12),
        scrambled=0.1,
        chapters=0.45,
        context=True,
        rank_share=0.6,
        guidance=0.2,
    ),
)


class Lessons:
    """Draws rows for a stage."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        facts = load_facts()
        self._rng, self._encoder = rng, Encoder(tokenizer, rng)
        self._sampler = Sampler(facts, OffTopic(), rng)
        vocabulary = words(tokenizer) + made_words(tokenizer, MADE_WORDS, rng)
        self._scrambled, self._librarian, self._chapters = (
            Scrambled(vocabulary, rng),
            Librarian(facts, vocabulary, rng),
            Chapters(vocabulary, rng),
        )

    def batches(self, stage: Stage) -> Iterator[list[Row]]:
        known, read = rows(self._known(stage), KNOWN_LENGTH), rows(self._read(stage), stage.length)
        for step in range(stage.steps):
            if stage.turns[step % len(stage.turns)] == "k":
                yield [next(known) for _ in range(KNOWN_ROWS)]
            else:
                yield [next(read) for _ in range(stage.rows)]

    def _known(self, stage: Stage) -> Iterator[TokenTree]:
        while True:
            yield from map(self._encoder.conversation, self._sampler.epoch(OFF_TOPIC_SHARE, context=stage.context))

    def _read(self, stage: Stage) -> Iterator[TokenTree]:
        while True:
            encoded = self._encoder.tree(tree(self._reading(stage), self._sampler.before(), self._rng))
            if encoded.branches:
                yield encoded

    def _reading(self, stage: Stage) -> Reading:
        rng = self._rng
        pages, sentences, kind = rng.choice(stage.pages), rng.choice(stage.sentences), rng.random()
        asks = min(MAX_ASKS, 2 + pages * sentences)
        if kind < stage.scrambled:
            return self._scrambled.reading(pages, sentences, asks, longest=rng.choice((4, 6, 8)))
        if kind < stage.scrambled + stage.chapters:
            return self._chapters.reading(pages, asks)
        return self._librarian.reading(Size(pages, sentences, asks, stage.rank_share))


def lesson_loss(
    model: Any, guidance: Guidance, packed: Sequence[Row], weight: float
) -> tuple[Any, Counter[str], Counter[str], dict[str, float]]:
    """The loss; of each kind of token those that were predicted, and all; and the loss of each guided head."""
    shown = batch(packed)
    learnt = shown.weights > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, heads = guidance.forward(shown)
        logits = model.lm_head(hidden[:, :-1][learnt])
    weights, targets = shown.weights[learnt], shown.targets[learnt]
    losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    right, count = Counter[str](), Counter(shown.kinds)
    for kind, hit in zip(shown.kinds, (logits.argmax(-1) == targets).tolist(), strict=True):
        right[kind] += hit
    loss = (losses * weights).sum() / weights.sum()
    return loss + weight * sum(heads.values()), right, count, {name: float(loss.detach()) for name, loss in heads.items()}


def new_model(tokenizer: Any) -> Any:
    """Draws from torch's random numbers."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def learning_rate(stage: Stage, step: int) -> float:
    """Of one of the stage's steps, which count from 0."""
    return stage.final_rate + (stage.rate - stage.final_rate) * 0.5 * (1 + math.cos(math.pi * step / stage.steps))


def optimizer_for(model: Any) -> Any:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    rest = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def train(model: Any, lessons: Lessons, stages: Sequence[Stage]) -> None:
    guidance, optimizer = Guidance(model), optimizer_for(model)
    started, seen, done, total = time.monotonic(), 0, 0, sum(stage.steps for stage in stages)
    right, count, heads, summed = Counter[str](), Counter[str](), defaultdict[str, list[float]](list), 0.0
    model.train()
    for stage in stages:
        for number, packed in enumerate(lessons.batches(stage)):
            loss, hits, targets, guided = lesson_loss(model, guidance, packed, stage.guidance)
            step(model, optimizer, loss, learning_rate(stage, number) * min(1.0, (done + 1) / WARMUP_STEPS))
            done, seen, summed = done + 1, seen + sum(len(row.ids) for row in packed), summed + loss.item()
            right, count = right + hits, count + targets
            for name, lost in guided.items():
                heads[name].append(lost)
            if done % REPORT_STEPS == 0:
                seconds = time.monotonic() - started
                say(f"step {done}/{total}  {seconds:.0f} s  {seen / seconds:.0f} tokens/s  loss {summed / REPORT_STEPS:.3f}")
                say("  right: " + "  ".join(f"{kind} {right[kind] / count[kind]:.3f}" for kind in sorted(count)))
                say("  heads: " + "  ".join(f"{name} {sum(lost) / len(lost):.2f}" for name, lost in sorted(heads.items())))
                right, count, heads, summed = Counter(), Counter(), defaultdict(list), 0.0


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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: 2, for which the shipped weights were trained)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = train_tokenizer(corpus(), VOCAB_SIZE)
    model = new_model(tokenizer)
    say(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
    train(model, Lessons(tokenizer, random.Random(args.seed)), STAGES)
    save(model, tokenizer, args.out)
    say(f"written to {args.out}")


if __name__ == "__main__":
    main()
