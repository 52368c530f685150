"""Trains the packaged verifier.

    python -m cache.verifiers.train --pairs FILE [FILE ...] [--out DIRECTORY]

FILE holds JSON lines `{"a", "b", "same"}`. Of its training part, pairs that share next to no words are thinned out, since they teach
nothing, and minimal edits of its questions (`edits.py`) are added. The test part (`pairs.part_of`) is never read; the calibration part
sets the map from the network's output to a probability. Deterministic up to the rounding of the machine's arithmetic. About 45 minutes
on two cores.
"""

import argparse
import itertools
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cache.embedders.sentence import SentenceEmbedder
from cache.verifiers.calibrate import calibrate
from cache.verifiers.edits import edited
from cache.verifiers.network import FROZEN, PairNetwork, save
from cache.verifiers.packaged import MODEL
from cache.verifiers.pairs import LabelledPair, digest, part_of, read_pairs, shared_words
from cache.verifiers.reader import Reader
from cache.verifiers.scoring import cosines, logits

SETTLES = ["entities", "near_identical"]
"""Guards that the network judges better: it has seen both sides of them, in labelled pairs and in edits."""
REPORT_STEPS = 100
THIN_BELOW = 0.15
"""Of the words of two questions, by how rare they are; one of 40 such pairs is labelled the same."""
THIN_KEEP = 8
BUCKET_BATCHES = 50
"""Batches whose pairs are sorted by length together: little padding, and still a random order."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    pairs = [pair for path in options.pairs for pair in read_pairs(path)]
    parts = {part: [pair for pair in pairs if part_of(pair) == part] for part in ("train", "calibrate")}
    chosen = thinned(parts["train"])
    made = edited(sorted({pair.a for pair in parts["train"]}), int(len(chosen) * options.edits), options.seed)
    _say(f"{len(chosen)} pairs and {len(made)} edits to train on, {len(parts['calibrate'])} pairs to calibrate")
    torch.manual_seed(options.seed)
    network = train(chosen + made, options)
    save(network, settings_of(network, parts["calibrate"]) | {"trained_on": digest(pairs), "pairs": len(parts["train"])}, options.out)
    _say(f"written to {options.out}")


def settings_of(network: Any, pairs: Sequence[LabelledPair]) -> dict[str, Any]:
    """What the verifier needs besides the weights. The cosine is a second opinion, of the packaged encoder only."""
    same, output = np.array([pair.same for pair in pairs]), logits(network, pairs)
    encoder = SentenceEmbedder()
    return {
        "alone": calibrate(same, [output]),
        "with_cosine": calibrate(same, [output, cosines(encoder, pairs)]),
        "encoder": encoder.name,
        "settles": SETTLES,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cache.verifiers.train", description="Trains the packaged verifier on labelled pairs.")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help='JSON lines {"a", "b", "same"}, gzipped or not')
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-4)
    parser.add_argument("--smoothing", type=float, default=0.0, help="labels are taken for wrong with this probability")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--edits", type=float, default=0.2, help="minimal edits for each labelled pair")
    parser.add_argument("--checkpoint", type=Path, help="where to write the state now and then, and to go on from if it is there")
    parser.add_argument("--seed", type=int, default=0)
    return parser


@dataclass
class _State:
    """All that a run needs to go on."""

    network: Any
    optimizer: Any
    schedule: Any
    step: int = 0

    def write(self, path: Path) -> None:
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "schedule")}
        torch.save({**parts, "step": self.step, "random": torch.get_rng_state()}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def read(self, path: Path) -> None:
        found = torch.load(path)
        for name in ("network", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(found[name])
        self.step = found["step"]
        torch.set_rng_state(found["random"])


def thinned(pairs: Sequence[LabelledPair]) -> list[LabelledPair]:
    """Without most of the pairs that have next to no words in common."""
    shares = shared_words(pairs)
    return [pair for place, (pair, share) in enumerate(zip(pairs, shares, strict=True)) if share >= THIN_BELOW or place % THIN_KEEP == 0]


def train(pairs: Sequence[LabelledPair], options: argparse.Namespace) -> Any:
    """The network after the last step, in evaluation mode."""
    steps = math.ceil(options.epochs * len(pairs) / options.batch)
    state = _new_state(options, steps)
    if options.checkpoint and options.checkpoint.exists():
        state.read(options.checkpoint)
        _say(f"going on from step {state.step}")
    parameters = [parameter for parameter in state.network.parameters() if parameter.requires_grad]
    is_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # emulated, it is ten times slower
    started, first, losses = time.monotonic(), state.step, []
    for inputs, labels in itertools.islice(_batches(pairs, options, state.step), steps - state.step):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16):
            output = state.network(**inputs)
        loss = nn.functional.binary_cross_entropy_with_logits(output, labels * (1 - 2 * options.smoothing) + options.smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.schedule.step()
        state.step += 1
        losses.append(loss.item())
        if state.step % REPORT_STEPS == 0:
            left_s = (time.monotonic() - started) / (state.step - first) * (steps - state.step)
            _say(f"step {state.step} of {steps}, loss {np.mean(losses[-REPORT_STEPS:]):.4f}, {left_s / 60:.0f} minutes left")
            if options.checkpoint:
                state.write(options.checkpoint)
    return state.network.eval()


def _new_state(options: argparse.Namespace, steps: int) -> _State:
    network = PairNetwork()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = options.dropout
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    return _State(network.train(), optimizer, schedule)


def _rate(step: int, steps: int) -> float:
    """Rises over the first 6 % of the steps, then falls to nothing."""
    return min((step + 1) / max(1, 0.06 * steps), max(0.0, (steps - step) / steps))


def _batches(pairs: Sequence[LabelledPair], options: argparse.Namespace, skip: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Epoch after epoch, each pair in a random order of its two questions: the judgement is to be symmetric. Without the first `skip`."""
    reader, number = Reader(truncates=True), 0
    for epoch in itertools.count():
        rng = random.Random(f"{options.seed}/{epoch}")
        order = rng.sample(range(len(pairs)), len(pairs))
        for start in range(0, len(order), options.batch * BUCKET_BATCHES):
            part = order[start : start + options.batch * BUCKET_BATCHES]
            turned = [rng.random() < 0.5 for _ in part]
            shuffled = rng.sample(range(math.ceil(len(part) / options.batch)), math.ceil(len(part) / options.batch))
            number += len(shuffled)
            if number <= skip:
                continue
            chosen = [
                LabelledPair(pair.b, pair.a, pair.same) if turn else pair
                for pair, turn in zip((pairs[i] for i in part), turned, strict=True)
            ]
            encoded = reader.encode([(pair.a, pair.b) for pair in chosen])
            by_length = sorted(range(len(chosen)), key=lambda row: len(encoded[row].ids))
            for place in shuffled[max(0, len(shuffled) - (number - skip)) :]:
                rows = by_length[place * options.batch : (place + 1) * options.batch]
                inputs = {name: torch.from_numpy(array) for name, array in reader.batch([encoded[row] for row in rows]).items()}
                yield inputs, torch.tensor([float(chosen[row].same) for row in rows])


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
