"""Teaches a model that `train.py` made to read documents.

    python -m deployments.demo_model.train_reading --start DIR [--out DIR] [--seed S]

The model is widened, with some heads set by hand (`growing.py`), and trained on documents with questions (`passages.py`, `scrambled.py`)
and on what it knew before. One CPU core is enough.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from deployments.demo_model import MODEL_DIR
from deployments.demo_model.data import OffTopic, load_facts
from deployments.demo_model.growing import grown, hold
from deployments.demo_model.packing import Batch, Row, TokenTree, batch, rows
from deployments.demo_model.passages import Librarian, Shares, Size
from deployments.demo_model.reading import Tree, tree
from deployments.demo_model.samples import HINTS, Sample, Sampler
from deployments.demo_model.scrambled import Scrambled, words
from deployments.demo_model.tokenizer import END, render
from deployments.demo_model.train import OFF_TOPIC_SHARE, save, say, step

WARMUP_STEPS = 30
REPORT_STEPS = 20
# What decides between documents is few tokens among many that follow from them.
FIRST_WEIGHT, SECOND_WEIGHT, LABEL_WEIGHT, RANKS_WEIGHT = 3.0, 1.5, 5.0, 0.3
KNOWN_AT_ONCE = 3
MAX_ASKS = 8


@dataclass(frozen=True)
class Stage:
    """What one part of the training shows, and how long: `steps` of `rows` rows of at most `length` tokens."""

    steps: int
    rows: int
    length: int
    rate: float
    final_rate: float
    documents: tuple[int, ...]
    sentences: tuple[int, ...]
    shares: Shares
    known: float
    """Of trees: those with `KNOWN_AT_ONCE` conversations of the kind that `train.py` shows, with everything around them if `context`."""
    context: bool
    scrambled: float


STAGES = (
    Stage(160, 6, 320, 2e-4, 2e-4, (1, 2, 2, 3), (1, 1, 2), Shares(0.05, 0.02, 0.05), known=0.05, context=False, scrambled=0.12),
    Stage(
        700, 5, 384, 2.5e-4, 2.5e-5, (1, 2, 2, 3, 3, 4, 5), (1, 1, 2, 3), Shares(0.08, 0.04, 0.06), known=0.22, context=True, scrambled=0.08
    ),
)


class Lessons:
    """Draws token trees for a stage."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        self._names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        facts, off_topic = load_facts(), OffTopic()
        self._sampler = Sampler(facts, off_topic, rng)
        vocabulary = words(tokenizer)
        self._scrambled = Scrambled(vocabulary, rng)
        self._librarian = Librarian(facts, off_topic, vocabulary, rng)

    def trees(self, stage: Stage) -> Iterator[TokenTree]:
        rng, known = self._rng, self._known(stage.context)
        while True:
            kind = rng.random()
            if kind < stage.known:
                yield from (next(known) for _ in range(KNOWN_AT_ONCE))
            elif kind < stage.known + stage.scrambled:
                reading = self._scrambled.reading(
                    rng.choice((1, 2, 3)), rng.choice((1, 2)), rng.randint(3, 6), longest=rng.choice((4, 6, 8))
                )
                yield self._encoded(tree(reading, self._sampler.before(), rng))
            else:
                documents, sentences = rng.choice(stage.documents), rng.choice(stage.sentences)
                size = Size(documents, sentences, min(MAX_ASKS, 2 + documents * sentences))
                yield self._encoded(tree(self._librarian.reading(size, stage.shares), self._sampler.before(), rng))

    def _known(self, context: bool) -> Iterator[TokenTree]:
        while True:
            yield from map(self._conversation, self._sampler.epoch(OFF_TOPIC_SHARE, context=context))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _conversation(self, sample: Sample) -> TokenTree:
        prompt = self._encode(render(sample.messages[:-1], add_generation_prompt=True))
        answer = self._encode(f"{sample.messages[-1]['content']}{END}\n")
        return TokenTree((prompt + answer, [0.0] * len(prompt) + [1.0] * (len(answer) - 1) + [0.0]), [])

    def _encoded(self, text: Tree) -> TokenTree:
        ids = self._encode(text.trunk)
        branches = []
        for branch in text.branches:
            question, answer = self._encode(branch.text[: branch.learnt_from]), self._encode(branch.text[branch.learnt_from :])
            branches.append((question + answer, [0.0] * len(question) + self._answer_weights(answer)))
        return TokenTree((ids, self._trunk_weights(text.trunk, ids)), branches)

    def _answer_weights(self, answer: list[int]) -> list[float]:
        """The newline behind the end is not learnt."""
        weights = [FIRST_WEIGHT, SECOND_WEIGHT, *[1.0] * (len(answer) - 3), 0.0]
        brackets = [place for place, token in enumerate(answer) if self._names[token] == "Ġ["]
        if brackets:
            weights[brackets[-1] + 1] = LABEL_WEIGHT
        return weights

    def _trunk_weights(self, trunk: str, ids: list[int]) -> list[float]:
        """The labels in the line with the ranks repeat the headers, all but their first pieces: a lesson in copying."""
        weights = [0.0] * len(ids)
        start, end = (len(self._encode(trunk[: trunk.rindex(mark)])) for mark in HINTS[0].split("{}"))
        place = 0
        for at in range(start, end):
            place = 0 if self._names[ids[at]].endswith("[") else place + 1
            if place > 1 and "Ġ[" in (self._names[token] for token in ids[start:at]):
                weights[at] = RANKS_WEIGHT
        return weights


def train(model: Any, lessons: Lessons, stage: Stage) -> None:
    """AdamW with a rate that falls in a line, without weight decay, which would shrink the parts that were set by hand."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.rate, betas=(0.9, 0.95), weight_decay=0.0)
    packed = rows(lessons.trees(stage), stage.length)
    started, total, right, count = time.monotonic(), 0.0, 0, 0
    for number in range(1, stage.steps + 1):
        loss, hits, targets = lesson_loss(model, [next(packed) for _ in range(stage.rows)])
        rate = stage.rate + (stage.final_rate - stage.rate) * number / stage.steps
        step(model, optimizer, loss, rate * min(1.0, number / WARMUP_STEPS))
        total, right, count = total + loss.item(), right + hits, count + targets
        if number % REPORT_STEPS == 0:
            seconds = time.monotonic() - started
            say(f"step {number}/{stage.steps}  loss {total / REPORT_STEPS:.3f}  tokens right {right / count:.1%}  {seconds:.0f} s")
            total, right, count = 0.0, 0, 0


def lesson_loss(model: Any, packed: list[Row]) -> tuple[Any, int, int]:
    """Weighted mean loss, and how many of the learnt tokens were predicted, of how many."""
    shown: Batch = batch(packed, max(len(row.ids) for row in packed))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.model(input_ids=shown.ids, position_ids=shown.positions, attention_mask=shown.mask, use_cache=False)
        learnt = shown.weights > 0
        logits = model.lm_head(output.last_hidden_state[:, :-1][learnt])
    weights, targets = shown.weights[learnt], shown.targets[learnt]
    losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    hits = int((logits.argmax(-1) == targets).sum())
    return (losses * weights).sum() / weights.sum(), hits, len(targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, required=True, help="a model that train.py has written")
    parser.add_argument("--out", type=Path, default=MODEL_DIR)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(args.start)
    model = grown(LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32), tokenizer)
    model.train()
    hold(model)
    say(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
    lessons = Lessons(tokenizer, random.Random(args.seed))
    for stage in STAGES:
        train(model, lessons, stage)
    save(model, tokenizer, args.out)
    say(f"written to {args.out}")


if __name__ == "__main__":
    main()
